"""A whole Podium of its own for a measurement: `manage.py up` on a scratch data folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 120
SCOPES = "search,ingest,admin"


class Stack:
    """Started on entry, stopped and removed on exit; sets the environment of this process.

    `settings`: environment variables for it. `null_reranker`: with benches.null_worker in place of
    the rerank worker.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, null_reranker: bool = False
    ) -> None:
        self._settings = dict(settings or {})
        self._null_reranker = null_reranker
        if null_reranker:
            self._settings["RERANK_WORKERS"] = "0"

    def __enter__(self) -> Stack:
        self.folder = Path(tempfile.mkdtemp(prefix="podium-bench-"))
        self.folder.chmod(0o755)  # as root the database runs as another user
        self.port = _free_port()
        var = self.folder / "var"
        environment = {**os.environ, "VAR_DIR": str(var), "DEMO": "0", **self._settings}
        environment["DJANGO_SETTINGS_MODULE"] = "searchapp.settings"
        for name in ("DATABASE_URL", "REDIS_URL"):
            environment.pop(name, None)
            os.environ.pop(name, None)
        self.log = self.folder / "up.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--no-demo", "--port", str(self.port)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._own: subprocess.Popen[bytes] | None = None
        try:
            if self._null_reranker:
                self._own = self._start_null_worker(environment)
            self._wait()
        except BaseException:
            self._stop()
            raise
        os.environ["VAR_DIR"] = str(var)
        return self

    def _start_null_worker(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Once there are tables for it."""
        self._wait(only={"database", "broker"})
        command = [sys.executable, "-m", "benches.null_worker", "-A", "searchapp", "worker"]
        with (self.folder / "null.log").open("w") as log:
            return subprocess.Popen(
                [*command, "--queues=gpu", "--pool=threads", "--concurrency=32", "-n", "gpu@%h"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._own is not None:
            self._own.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def api_key(self) -> str:
        """A new key of the administrator's for searching, adding and making collections."""
        command = [
            sys.executable,
            "manage.py",
            "create_api_key",
            "--name=bench",
            f"--scopes={SCOPES}",
        ]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return made.stdout.strip().splitlines()[-1]

    def memory_mb(self) -> dict[str, int]:
        """Resident megabytes of the largest process of each kind."""
        found: dict[str, int] = {}
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                kind = _kind(" ".join(process.cmdline()))
                size = process.memory_info().rss >> 20
            except psutil.Error:
                continue
            found[kind] = max(found.get(kind, 0), size)
        return dict(sorted(found.items()))

    def cpu_seconds(self) -> dict[str, float]:
        """Used so far, by kind of process."""
        found: dict[str, float] = {}
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                kind = _kind(" ".join(process.cmdline()))
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[kind] = found.get(kind, 0.0) + times.user + times.system
        return dict(sorted(found.items()))

    def _wait(self, only: Collection[str] = ()) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"Podium did not start:\n{self.log.read_text()}")
            try:
                checks = self._checks()
                if checks and all(checks[name].get("ok") for name in only or checks):
                    return
            except (urllib.error.URLError, OSError, ValueError, KeyError):
                pass
            time.sleep(0.5)
        raise RuntimeError(f"Podium was not ready in time:\n{self.log.read_text()}")

    def _checks(self) -> dict[str, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=5) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            body = json.load(error)
        checks: dict[str, dict[str, object]] = body.get("checks", {})
        return checks


def _kind(command: str) -> str:
    for sign, kind in [
        ("gunicorn", "web"),
        ("-Q gpu", "rerank worker"),
        ("-Q embed", "embed worker"),
        ("-Q default", "default worker"),
        ("redis", "redis"),
        ("postgres", "postgres"),
    ]:
        if sign in command:
            return kind
    return "other"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
