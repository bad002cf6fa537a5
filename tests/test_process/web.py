"""The real web process, gunicorn, beside a test: its database is the test's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.ports import free_port
from tests.test_searchapp.test_api.workers import database_url

from .stack import ROOT, get, wait_for


class WebProcess:
    """Started at once; `wait` returns when it answers, `end` ends it."""

    def __init__(self, log: Path, **environment: str) -> None:
        self.port = free_port()
        self.log = log
        own = {"DATABASE_URL": database_url(), "BIND": f"127.0.0.1:{self.port}", **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
            cwd=ROOT,
            env={**os.environ, **own},
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        what = f"the web process:\n{self.log.read_text()}"
        wait_for(lambda: get(f"{self.url}/healthz")[0] == 200, 120, what)

    def connect(self) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(30)
        made.connect(("127.0.0.1", self.port))
        return made

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(30)
