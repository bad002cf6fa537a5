"""A private PostgreSQL and Redis for each test process, unless the environment names others.

A plugin rather than a conftest: pytest-django reads the settings before any conftest is loaded,
and the settings read the environment. pyproject.toml loads it with `-p tests.servers`.

With `-n` every worker of pytest-xdist is such a process, with a data folder, servers and a share
of the cores of its own. The process that hands out the tests runs none and starts no servers.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from searchapp.embedded.account import server_account
from searchapp.embedded.servers import start_servers
from searchapp.embedded.state import read_state

from .parallel import cores

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    known = early_config.known_args_namespace
    root = _folder()
    if "PYTEST_XDIST_WORKER" in os.environ:
        _take_share()
        _start(root)
    elif getattr(known, "numprocesses", None):
        server_account()  # made once here, before every worker would make it at the same time
    else:
        _start(root)
    return (yield)


def _folder() -> Path:
    """VAR_DIR for this process, inside the controller's where there is one."""
    above = os.environ.get("PODIUM_TEST_ROOT")
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    root = Path(above) / name if above else Path(tempfile.mkdtemp(prefix="podium-test-"))
    root.mkdir(exist_ok=True)
    # Open to other users, because as root the servers run as one of them.
    root.chmod(0o755)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    os.environ["PODIUM_TEST_ROOT"] = str(root)
    os.environ["VAR_DIR"] = str(root / "var")
    (root / "var" / "staticfiles").mkdir(parents=True)  # whitenoise warns without it
    return root


def _start(root: Path) -> None:
    servers = start_servers(root / "var", dies_with_us=True, postgres_settings=FAST)
    atexit.register(servers.stop)
    state = read_state(root / "var")
    for name in ("database_url", "redis_url"):
        if name in state:
            os.environ[name.upper()] = state[name]


def _take_share() -> None:
    """Workers that each counted on all cores would wait for one another."""
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))
    # Django gives each worker a database of its own on a given server; Redis has numbered ones.
    if given := os.environ.get("REDIS_URL"):
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        os.environ["REDIS_URL"] = urlsplit(given)._replace(path=f"/{number}").geturl()
