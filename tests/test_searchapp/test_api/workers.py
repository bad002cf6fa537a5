"""A real Celery worker process beside a test's live server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

from searchapp.engine import broker, presence

ROOT = Path(__file__).resolve().parents[3]
CELERY = [sys.executable, "-m", "celery", "-A", "searchapp"]


def database_url() -> str:
    """The URL of this session's test database, for a process of its own."""
    made = connection.settings_dict
    host = made["HOST"] or "127.0.0.1"
    return f"postgresql://{made['USER']}:{made['PASSWORD']}@{host}:{made['PORT']}/{made['NAME']}"


@contextmanager
def running_worker(
    log: Path, queues: str = "default,gpu,embed", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Until the block ends; ready when it begins."""
    broker.connection().flushdb()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*CELERY, "worker", f"--queues={queues}", "--pool=threads", "--concurrency=8"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url(), **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: process.poll() is not None or presence.alive("gpu"), 300)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)
