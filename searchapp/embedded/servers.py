"""Both embedded servers together, for whoever needs them and as long as anybody does."""

from __future__ import annotations

import atexit
import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .postgres import PostgresServer, start_postgres
from .redis import RedisServer, start_redis
from .state import make_var_dir, starting, var_dir


@dataclass(frozen=True)
class Servers:
    """What runs for us; None where DATABASE_URL or REDIS_URL names another server."""

    postgres: PostgresServer | None
    redis: RedisServer | None

    def stop(self) -> None:
        """The broker first, so that nothing new arrives while the database ends."""
        if self.redis:
            self.redis.stop()
        if self.postgres:
            self.postgres.stop()


def start_servers(
    var: Path, *, dies_with_us: bool, postgres_settings: Mapping[str, str] | None = None
) -> Servers:
    """Starts what the environment does not provide and what does not run yet."""
    make_var_dir(var)
    with starting(var):
        postgres = redis = None
        if not provided("DATABASE_URL"):
            postgres = start_postgres(var, dies_with_us=dies_with_us, settings=postgres_settings)
        try:
            if not provided("REDIS_URL"):
                redis = start_redis(var, dies_with_us=dies_with_us)
        except BaseException:
            if postgres and postgres.started_here:
                postgres.stop()
            raise
    return Servers(postgres, redis)


def ensure() -> Callable[[], None]:
    """Makes the embedded servers run for as long as this process does; returns an early release.

    The last process that leaves stops them, unless `up` has them: so two commands may overlap,
    and neither takes the servers from the other or from a running Podium.
    """
    if provided("DATABASE_URL") and provided("REDIS_URL"):
        return lambda: None
    var = var_dir()
    make_var_dir(var)
    hold = hold_servers(var)
    servers = start_servers(var, dies_with_us=False)
    owner = os.getpid()

    def release() -> None:
        if os.getpid() == owner and not hold.closed:
            _leave(var, hold, servers)

    atexit.register(release)
    return release


def hold_servers(var: Path) -> IO[str]:
    """While the returned file is open, no command that ends stops the servers."""
    file = (var / "embedded.users").open("a")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _leave(var: Path, hold: IO[str], servers: Servers) -> None:
    with hold, starting(var):
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        servers.stop()


def provided(name: str) -> bool:
    """Whether the environment names another server, by the variable or by NAME_FILE."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))
