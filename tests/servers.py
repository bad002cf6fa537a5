"""A private PostgreSQL and Redis for each test session, unless the environment names others.

A plugin rather than a conftest: pytest-django reads the settings before any conftest is loaded,
and the settings read the environment. pyproject.toml loads it with `-p tests.servers`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from searchapp.embedded.servers import start_servers
from searchapp.embedded.state import read_state

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _start() -> None:
    # Open to other users, because as root the servers run as one of them.
    root = Path(tempfile.mkdtemp(prefix="podium-test-"))
    root.chmod(0o755)
    os.environ["VAR_DIR"] = str(root / "var")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "var" / "staticfiles").mkdir(parents=True)  # whitenoise warns without it
    servers = start_servers(root / "var", dies_with_us=True, postgres_settings=FAST)
    atexit.register(servers.stop)
    state = read_state(root / "var")
    for name in ("database_url", "redis_url"):
        if name in state:
            os.environ[name.upper()] = state[name]


_start()
