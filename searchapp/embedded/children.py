"""One supervised process: its output to a log and, where it matters, to the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from .daemon import die_with_parent

Say = Callable[[str, str], None]

_LOG_BYTES = 5_000_000
_WORTH_SHOWING = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback|^\w*Error\b")
# Celery's advice against root and threads, which we know about.
_KNOWN_NOISE = re.compile(r"SecurityWarning|superuser privileges")
# A line for the eyes of whoever started Podium, and for no log.
FOR_EYES_ONLY = "shown only now"
_HEALTHY_SECONDS = 60
_LONGEST_PAUSE_SECONDS = 30


class Child:
    """A command that is kept running. The parent calls `tend` often; nothing here blocks."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
        say: Say,
        show_all: bool = False,
        restart: bool = True,
        stop_seconds: float = 15,
        niceness: int = 0,
    ) -> None:
        self.name = name
        self.restart = restart
        self.stop_seconds = stop_seconds
        self.niceness = niceness
        self._command = list(command)
        self._folder = folder
        self._log = log
        self._environment = dict(environment)
        self._say = say
        self._show_all = show_all
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._failures = 0
        self._started_at = 0.0
        self._start_again_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Must run in the main thread: the kernel ends the child with the thread that made it."""
        self._start_again_at = None
        self._started_at = time.monotonic()
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        assert self._process.stdout is not None
        if self.niceness:
            yield_to_others(self._process.pid, self.niceness)
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"log {self.name}", daemon=True
        )
        self._reader.start()

    def tend(self) -> int | None:
        """Starts the command again when it has ended and its pause is over.

        Returns the exit status of a child that ended and is not to be restarted.
        """
        if self._start_again_at is not None:
            if time.monotonic() >= self._start_again_at:
                self.start()
            return None
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._sweep_up()
        if not self.restart:
            self._process = None
            return status
        if time.monotonic() - self._started_at > _HEALTHY_SECONDS:
            self._failures = 0
        pause = min(2.0**self._failures, _LONGEST_PAUSE_SECONDS)
        self._failures += 1
        self._say(self.name, f"ended ({_ending(status)}); starting again in {pause:.0f} s")
        self._start_again_at = time.monotonic() + pause
        return None

    def wait(self) -> int:
        """Waits for a command that ends by itself."""
        assert self._process is not None
        status = self._process.wait()
        self._sweep_up()
        return status

    def ask_to_stop(self) -> None:
        self._start_again_at = None
        if self.pid is not None and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def gone(self) -> bool:
        return self.pid is None

    def kill(self) -> None:
        """Ends the child and everything it started."""
        self._start_again_at = None
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def settle(self) -> None:
        """After the end: what the child started and left behind is ended too."""
        self._sweep_up()
        if self._reader:
            self._reader.join(1)

    def _sweep_up(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, stream: IO[bytes]) -> None:
        try:
            with stream, self._log.open("ab") as log:
                for line in stream:
                    text = line.decode("utf-8", "replace").rstrip()
                    if FOR_EYES_ONLY not in text:
                        log.write(line)
                        log.flush()
                    if text and (self._show_all or _worth_showing(text)):
                        self._say(self.name, text)
        except OSError as error:
            # Without its reader a child would block on a full pipe: read on, keep nothing.
            self._say(self.name, f"its log cannot be written ({error.strerror}): is the disk full?")
            with contextlib.suppress(OSError, ValueError):
                while stream.read(65536):
                    pass


def _worth_showing(text: str) -> bool:
    return bool(_WORTH_SHOWING.search(text)) and not _KNOWN_NOISE.search(text)


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


def yield_to_others(pid: int, niceness: int) -> None:
    """Lowers the priority, where the system allows it: pages come before what runs behind them."""
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process(pid).nice(niceness)
    # Linux may weigh whole sessions against each other, and each child is a session of its own; one
    # that was started from a terminal is not, and the terminal's other programs are not ours.
    with contextlib.suppress(psutil.Error, OSError):
        if os.getsid(pid) in {pid, psutil.Process(pid).ppid()}:
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
