"""What must hold before anything is started; each failure is one sentence and what to do."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from .daemon import port_is_free
from .state import EmbeddedError

MIN_POSTGRES = 160000
MIN_PGVECTOR = (0, 8)


def take_lock(var: Path, address: str) -> IO[str]:
    """The lock that lets one `up` run per data folder; it ends with the process, also killed."""
    file = (var / "up.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = _parsed(file.read())
        file.close()
        raise EmbeddedError(
            f"Podium already runs on the data in {var} (process {holder.get('pid', 'unknown')}, "
            f"{holder.get('address', 'address unknown')}). Use that one, stop it first, or start "
            "this one with its own VAR_DIR."
        ) from error
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "address": address}))
    file.flush()
    return file


def check_port(host: str, port: int) -> None:
    if port < 1024 and os.geteuid() != 0:
        raise EmbeddedError(f"Port {port} is for root only. Use another: make up PORT=8000")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.getaddrinfo(host, port, family)
    except OSError as error:
        raise EmbeddedError(f"{host} is not an address of this machine ({error}).") from error
    if port_is_free(port, host):
        return
    owner = "another Podium" if _is_podium(port) else "another program"
    raise EmbeddedError(
        f"Port {port} is in use by {owner}. Stop it, or use another port: make up PORT={port + 1}"
    )


def check_database(url: str) -> None:
    """Whether the PostgreSQL of DATABASE_URL answers and has what Podium needs."""
    import psycopg

    place = url.rsplit("@", 1)[-1]
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            version = connection.info.server_version
            row = connection.execute(
                "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
            ).fetchone()
    except (psycopg.Error, UnicodeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EmbeddedError(
            f"DATABASE_URL names a PostgreSQL at {place} that does not answer: {reason} "
            "Start it, correct the address, or unset DATABASE_URL to use the embedded one."
        ) from error
    if version < MIN_POSTGRES:
        raise EmbeddedError(
            f"The PostgreSQL at {place} is version {version // 10000}; Podium needs 16 or newer."
        )
    if row is None or _numbers(row[0]) < MIN_PGVECTOR:
        raise EmbeddedError(
            f"The PostgreSQL at {place} lacks pgvector 0.8 or newer. Install it there, for example "
            "by using the image pgvector/pgvector, or unset DATABASE_URL."
        )


def check_broker(url: str) -> None:
    import redis

    place = url.rsplit("@", 1)[-1]
    try:
        redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5).ping()
    except (redis.RedisError, ValueError) as error:
        raise EmbeddedError(
            f"REDIS_URL names a Redis at {place} that does not answer: {error}. "
            "Start it, correct the address, or unset REDIS_URL to use the embedded one."
        ) from error


def _is_podium(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return _parsed(answer.read(1000).decode("utf-8", "replace")).get("name") == "podium"
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
