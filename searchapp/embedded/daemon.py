"""A server process: started so that it dies with us when it should, found again, stopped."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import psutil

from .account import Account

_PR_SET_PDEATHSIG = 1


def die_with_parent(with_signal: int) -> Callable[[], None] | None:
    """A preexec function: the kernel sends `with_signal` when the starting thread ends (Linux).

    None elsewhere; there the next start finds what was left and takes it over.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, with_signal, 0, 0, 0)

    return ask


def start_daemon(
    command: Sequence[str | Path],
    account: Account,
    log: IO[bytes],
    *,
    death_signal: int | None = None,
    **environment: str,
) -> subprocess.Popen[bytes]:
    """Starts a server in a session of its own, so that Ctrl-C in the terminal passes it by."""
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **environment},
        start_new_session=True,
        preexec_fn=die_with_parent(death_signal) if death_signal is not None else None,
        **account.popen_arguments(),
    )


def alive(pid: int, name: str) -> psutil.Process | None:
    """The running process `pid` if it is a `name`; a zombie counts as dead."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or name not in process.name():
            return None
    except psutil.Error:
        return None
    return process


def pid_from(path: Path) -> int | None:
    """The number in the first line of a pid file."""
    try:
        return int(path.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def stop(process: psutil.Process, with_signal: int = signal.SIGTERM, seconds: float = 20) -> None:
    """Asks the process to end, and kills it when it has not after `seconds`."""
    try:
        process.send_signal(with_signal)
        process.wait(seconds)
    except psutil.TimeoutExpired:
        process.kill()
    except psutil.Error:
        pass


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """`preferred` if nobody listens there, else a port the system offers."""
    if preferred and port_is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_lines(path: Path, size: int = 4000) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
