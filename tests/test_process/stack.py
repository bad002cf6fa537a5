"""Starting Podium's processes for real, in a data folder of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def own_environment(var: Path, **more: str) -> dict[str, str]:
    """Ours without the servers of the test session, so that Podium starts its own."""
    dropped = {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "VAR_DIR": str(var), "ADMIN_PASSWORD": "a long test password", **more}


def run_up(var: Path, port: int, **more: str) -> subprocess.CompletedProcess[str]:
    """`up` in the hope that it refuses."""
    return subprocess.run(
        [sys.executable, "manage.py", "up", "--port", str(port), "--no-demo"],
        cwd=ROOT,
        env=own_environment(var, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def processes_of(var: Path | str) -> list[str]:
    """The living processes that belong to the data folder, by their command or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            words = " ".join(process.cmdline())
            if str(var) in words or process.environ().get("VAR_DIR") == str(var):
                found.append(f"{process.pid} {words[:150]}")
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def get(url: str) -> tuple[int, str]:
    """Status and body; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Stack:
    """A running `manage.py up`."""

    def __init__(self, var: Path, **more: str) -> None:
        self.var = var
        self.port = free_port()
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(self.port), "--no-demo"],
            cwd=ROOT,
            env=own_environment(var, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self, seconds: float = 240) -> None:
        def ready() -> bool:
            assert self._process.poll() is None, f"up ended:\n{self.output}"
            return "ready after" in self.output

        wait_for(ready, seconds, f"ready. So far:\n{self.output}")

    def get(self, path: str) -> tuple[int, str]:
        return get(f"http://127.0.0.1:{self.port}{path}")

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.var / "embedded.json").read_text()))

    def child(self, *words: str) -> psutil.Process:
        """The direct child whose command holds all the words."""
        for process in psutil.Process(self.pid).children():
            if all(word in process.cmdline() for word in words):
                return process
        raise AssertionError(f"no child with {words}")

    def interrupt(self, seconds: float = 90) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(seconds)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """Whatever happened: nothing of it is left."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
