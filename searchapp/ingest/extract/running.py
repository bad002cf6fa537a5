"""The parent's side: children that read files, borrowed, fed, watched and replaced."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from .records import ExtractionFailure, Item, Limits, Source, from_json, megabytes

ROOT = Path(__file__).resolve().parents[3]
# A fresh child after this many files, or after one that needed this much memory.
_MAX_FILES = 1000
_MAX_PEAK_BYTES = 400 * 1024 * 1024
_TICK_SECONDS = 2.0
_READ_BYTES = 1024 * 1024


def extract(source: Source) -> Iterator[Item | None]:
    """The items of one file, read in a child process; None every two seconds of silence, so that
    the caller can renew its lease. Never raises for what is in the file.

    `limits.seconds` counts only the time spent waiting for the child.
    """
    child = _borrow()
    try:
        yield from child.read(source)
    finally:
        _give_back(child)


class _Child:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "searchapp.ingest.extract"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=child_environment(),
            start_new_session=True,
        )
        self.files = 0
        self.is_idle = True
        self.peak_bytes = 0
        self._waiting = b""

    def read(self, source: Source) -> Iterator[Item | None]:
        self.is_idle = False
        self.files += 1
        try:
            self._ask(source)
        except OSError:
            yield self._stopped(source.limits)
            return
        waited = 0.0
        chunks: list[bytes] = [self._waiting]
        while True:
            started = time.monotonic()
            chunk = self._chunk()
            waited += time.monotonic() - started
            if chunk == b"":
                yield self._stopped(source.limits)
                return
            if chunk is None:
                if waited > source.limits.seconds:
                    self.stop()
                    yield ExtractionFailure(_timed_out(source.limits.seconds), retryable=True)
                    return
                yield None
                continue
            chunks.append(chunk)
            if b"\n" not in chunk:
                continue
            *lines, rest = b"".join(chunks).split(b"\n")
            chunks = [rest]
            for line in lines:
                data = json.loads(line)
                if data["kind"] == "end":
                    self.peak_bytes = data["peak_bytes"]
                    self._waiting = rest
                    self.is_idle = True
                    return
                yield from_json(data)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                # Closing flushes what a dead reader will never take.
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def is_fresh(self) -> bool:
        return (
            self.is_idle
            and self.files < _MAX_FILES
            and self.peak_bytes < _MAX_PEAK_BYTES
            and self.process.poll() is None
        )

    def _ask(self, source: Source) -> None:
        request = {
            "path": str(source.path),
            "name": source.name,
            "limits": asdict(source.limits),
            "scratch": str(source.scratch) if source.scratch else "",
            "depth": source.depth,
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def _chunk(self) -> bytes | None:
        """Bytes, b"" when the child is gone, None after a silent tick."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], _TICK_SECONDS)
        return os.read(descriptor, _READ_BYTES) if ready else None

    def _stopped(self, limits: Limits) -> ExtractionFailure:
        self.stop()
        code = self.process.returncode
        if code == -14:  # SIGALRM, its own watch
            return ExtractionFailure(_timed_out(limits.seconds), retryable=True)
        if code in {1, -6, -9, -11}:
            return ExtractionFailure(
                "Reading this file broke off: it is damaged, or it needs more than the "
                f"{megabytes(limits.memory_bytes)} of memory allowed.",
                retryable=True,
            )
        return ExtractionFailure(f"Reading this file broke off (exit code {code}).", retryable=True)


def _timed_out(seconds: float) -> str:
    return f"Reading this file took longer than the {seconds:g} seconds allowed."


def child_environment() -> dict[str, str]:
    """No secrets in the process that touches foreign bytes."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HOME")
    found = {key: os.environ[key] for key in kept if key in os.environ}
    return {**found, "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}


_idle: list[_Child] = []
_idle_owner = 0
_lock = threading.Lock()


def _borrow() -> _Child:
    global _idle_owner
    with _lock:
        if _idle_owner != os.getpid():  # forked: the pipes belong to the process before us
            _idle.clear()
            _idle_owner = os.getpid()
        while _idle:
            child = _idle.pop()
            if child.is_fresh:
                return child
            child.stop()
    return _Child()


def _give_back(child: _Child) -> None:
    if not child.is_fresh:
        child.stop()
        return
    with _lock:
        _idle.append(child)


def stop_idle() -> None:
    """Ends the children kept for the next file, as a command does before it leaves."""
    with _lock:
        while _idle:
            _idle.pop().stop()
