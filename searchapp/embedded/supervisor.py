"""`manage.py up`: every process of Podium under one parent, started in order, stopped in order."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import psutil

from .children import Child
from .gpus import rerank_workers
from .preflight import check_broker, check_database, check_port, take_lock
from .servers import Servers, hold_servers, start_servers
from .state import PROJECT, EmbeddedError, read_state, write_state

_CELERY = ["-m", "celery", "-A", "searchapp", "worker", "--loglevel", "INFO"]
_CELERY += ["--without-gossip", "--without-mingle", "--hostname"]
_TICK_SECONDS = 0.2
# A search works without these workers, so they are waited for only this long.
_PATIENCE_SECONDS = 60
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass
class Stopping:
    """How often we were asked to stop: once is politely, twice is at once."""

    requests: int = 0
    previous: dict[int, Any] = field(default_factory=dict)

    def listen(self) -> None:
        for number in _SIGNALS:
            self.previous[number] = signal.signal(number, self._heard)

    def unlisten(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.requests += 1


class Stopped(Exception):
    """We were asked to stop before everything was up."""


class Supervisor:
    """Owns the servers and the children of one data folder."""

    def __init__(self, var: Path, host: str, port: int, *, demo: bool, out: TextIO) -> None:
        self.var = var
        self.host = host
        self.port = port
        self.demo = demo
        self._out = out
        self._out_lock = threading.Lock()
        self._stopping = Stopping()
        self._servers = Servers(None, None)
        self._children: list[Child] = []
        self._environment: dict[str, str] = {}
        self._ready: set[str] = set()
        self._next_server_try = 0.0

    @property
    def address(self) -> str:
        shown = "localhost" if self.host in _LOOPBACK | {"0.0.0.0", "::"} else self.host
        return f"http://{shown}:{self.port}/"

    def run(self) -> None:
        """Until asked to stop. Raises EmbeddedError when it cannot start."""
        with take_lock(self.var, self.address), hold_servers(self.var):
            check_port(self.host, self.port)
            self._stopping.listen()
            try:
                self._start()
                while not self._stopping.requests:
                    self._tend()
                    time.sleep(_TICK_SECONDS)
            except Stopped:
                pass
            finally:
                self._stop()
                self._stopping.unlisten()

    def say(self, name: str, text: str) -> None:
        with self._out_lock:
            try:
                self._out.write(f"{name:<9}| {text}\n")
                self._out.flush()
            except (OSError, ValueError):
                pass  # the terminal is gone; the logs go on

    # --- start -----------------------------------------------------------------------------

    def _start(self) -> None:
        started = time.monotonic()
        self._start_servers()
        self._environment = self._child_environment()
        tables = _tables_fingerprint()
        early = self._model_workers()
        # The models load while the tables are made sure of, unless these are about to change.
        unchanged = read_state(self.var).get("tables") == tables
        if unchanged:
            self._start_children(early)
        self._prepare()
        write_state(self.var, tables=tables)
        self._start_children(([] if unchanged else early) + self._other_children())
        self.say("podium", "starting web and workers; loading the models takes a moment")
        self._wait_until_ready()
        self.say("podium", f"ready after {time.monotonic() - started:.0f} s: {self.address}")
        self.say("podium", f"logs are in {self.var / 'log'}; Ctrl-C stops everything")
        if self.demo:
            self._start_children([self._demo_child()])

    def _start_children(self, children: list[Child]) -> None:
        for child in children:
            self._children.append(child)
            child.start()

    def _start_servers(self) -> None:
        database, broker = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        if database:
            check_database(database)
            self.say("postgres", "using DATABASE_URL")
        if broker:
            check_broker(broker)
            self.say("redis", "using REDIS_URL")
        self._servers = start_servers(self.var, dies_with_us=True)
        for name, server in (("postgres", self._servers.postgres), ("redis", self._servers.redis)):
            if server:
                how = "started" if server.started_here else "taken over, it was running"
                self.say(name, f"{how} on 127.0.0.1:{server.port}")

    def _child_environment(self) -> dict[str, str]:
        bind = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        environment = {
            **os.environ,
            "VAR_DIR": str(self.var),
            "BIND": bind,
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self.host not in _LOOPBACK and "ALLOWED_HOSTS" not in os.environ:
            environment["ALLOWED_HOSTS"] = ",".join(_own_names(self.host))
        return environment

    def _prepare(self) -> None:
        """Tables, the administrator and the static files, side by side."""
        self.say("podium", "preparing the tables and the static files")
        steps = [
            self._child("migrate", ["manage.py", "prepare"], show_all=True, restart=False),
            self._child(
                "static", ["manage.py", "collectstatic", "--noinput", "-v", "0"], restart=False
            ),
        ]
        self._start_children(steps)
        waiting = set(steps)
        while waiting:
            self._check_stop()
            for step in list(waiting):
                if not step.gone():
                    continue
                waiting.discard(step)
                self._children.remove(step)
                if status := step.wait():
                    log = self.var / "log" / f"{step.name}.log"
                    raise EmbeddedError(
                        f"Podium could not start: {step.name} failed (exit status {status}). "
                        f"{_reason(log)}The whole story is in {log}."
                    )
            time.sleep(0.05)

    def _model_workers(self) -> list[Child]:
        embed = [*_CELERY, "embed@%h", "-Q", "embed", "-P", "threads", "-c", "4"]
        # Vectors cut short are simply made again, so nobody waits for them long. Those of many new
        # passages must not hold up the pages, and a query's takes little of the processor.
        return [*self._rerank_workers(), self._child("embed", embed, stop_seconds=6, niceness=8)]

    def _rerank_workers(self) -> list[Child]:
        """One per GPU, each seeing its own only."""
        # So many searches are in hand at once, for their texts to be scored together.
        many = ["-Q", "gpu", "-P", "threads", "-c", "32"]
        return [
            self._child(
                worker.name,
                [*_CELERY, f"{worker.node}@%h", *many],
                more=worker.environment,
                # What it has in hand is answered within a search's deadline, or by nobody.
                stop_seconds=10,
                # On the CPU a rerank takes every core there is; the next person's page goes first.
                niceness=5,
            )
            for worker in rerank_workers(os.environ)
        ]

    def _other_children(self) -> list[Child]:
        clock = ["-B", "--scheduler", "celery.beat.Scheduler"]
        return [
            # The only one that also runs the clock of the periodic tasks.
            self._child(
                "worker", [*_CELERY, "default@%h", "-Q", "default", "-c", "2", *clock], niceness=5
            ),
            self._child("web", ["-m", "gunicorn", "-c", "gunicorn.conf.py"], stop_seconds=10),
            # Its pool's one process ends with each training, and torch's memory with it.
            self._child(
                "training",
                [*_CELERY, "training@%h", "-Q", "training", "-c", "1", "--max-tasks-per-child=1"],
                # A step, and its state onto the disk.
                stop_seconds=10,
                niceness=5,
            ),
        ]

    def _demo_child(self) -> Child:
        load = ["manage.py", "load_demo", "--leave-deleted"]
        return self._child("demo", load, show_all=True, restart=False)

    def _child(
        self,
        name: str,
        arguments: list[str],
        more: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Child:
        return Child(
            name,
            [sys.executable, *arguments],
            folder=PROJECT,
            log=self.var / "log" / f"{name}.log",
            environment={**self._environment, **(more or {})},
            say=self.say,
            **options,
        )

    def _wait_until_ready(self) -> None:
        """Tends the children meanwhile, and tells what has become ready."""
        usable_since: float | None = None
        while True:
            self._check_stop()
            self._tend()
            answer = self._readiness()
            checks = answer.get("checks", {})
            for name, check in checks.items():
                if (check.get("ok") or check.get("refused")) and name not in self._ready:
                    self._ready.add(name)
                    self.say("podium", f"{check.get('name', name)}: {check.get('detail', 'ready')}")
            # A model that failed its checks stays away; pages show the first-stage order.
            if answer.get("ready") or checks.get("rerank_worker", {}).get("refused"):
                usable_since = usable_since or time.monotonic()
                everything = len(self._ready) == len(checks)
                if everything or time.monotonic() - usable_since > _PATIENCE_SECONDS:
                    return
            time.sleep(0.3)

    def _readiness(self) -> dict[str, Any]:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        request = urllib.request.Request(
            f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{self.port}/readyz",
            headers={"Host": "localhost"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            body = error.read()
        except OSError:
            return {}
        try:
            parsed = json.loads(body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    # --- run -------------------------------------------------------------------------------

    def _tend(self) -> None:
        for child in list(self._children):
            status = child.tend()
            if status is not None:
                self._children.remove(child)
                if status:
                    log = self.var / "log" / f"{child.name}.log"
                    self.say(child.name, f"ended with status {status}; see {log}")
        self._tend_servers()

    def _tend_servers(self) -> None:
        """A server that died is started again on its old port; the children reconnect."""
        dead = [
            name
            for name, server in (
                ("postgres", self._servers.postgres),
                ("redis", self._servers.redis),
            )
            if server and server.process() is None
        ]
        if not dead or time.monotonic() < self._next_server_try:
            return
        before = read_state(self.var)
        self.say(dead[0], "has ended; starting it again")
        try:
            self._servers = start_servers(self.var, dies_with_us=True)
        except EmbeddedError as error:
            self.say(dead[0], str(error))
            self._next_server_try = time.monotonic() + 10
            return
        self.say(dead[0], "runs again")
        after = read_state(self.var)
        if any(before.get(key) != after.get(key) for key in ("database_url", "redis_url")):
            self.say("podium", "it moved to another port; starting web and workers again")
            for child in self._children:
                child.ask_to_stop()

    def _check_stop(self) -> None:
        if self._stopping.requests:
            raise Stopped

    # --- stop ------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Web first, so that no request meets a missing worker; then workers; then the servers."""
        self.say("podium", "stopping")
        groups = [
            [child for child in self._children if child.name in {"web", "demo"}],
            [child for child in self._children if child.name not in {"web", "demo"}],
        ]
        for group in groups:
            for child in group:
                child.ask_to_stop()
            limit = time.monotonic() + max((child.stop_seconds for child in group), default=0)
            self._wait(lambda group=group: all(child.gone() for child in group), limit)  # type: ignore[misc]
            for child in group:
                if not child.gone():
                    self.say(child.name, "still busy; it goes on with its work at the next start")
                child.kill()
                child.settle()
        self._servers.stop()
        self.say("podium", "stopped")

    def _wait(self, done: Callable[[], bool], limit: float) -> None:
        """Until done, the limit, or a second request to stop."""
        asked = max(self._stopping.requests, 1)
        while not done() and time.monotonic() < limit and self._stopping.requests <= asked:
            time.sleep(0.05)


def _tables_fingerprint() -> str:
    """Changes with the migrations and with the database they are for."""
    names = sorted(path.name for path in (PROJECT / "searchapp" / "migrations").glob("0*.py"))
    names += [version("django"), os.environ.get("DATABASE_URL", "")]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _own_names(host: str) -> list[str]:
    """What this machine is called: its addresses and its host name."""
    names = {"localhost", "127.0.0.1", "[::1]", socket.gethostname(), socket.getfqdn()}
    if host not in {"0.0.0.0", "::"}:
        names.add(f"[{host}]" if ":" in host else host)
        return sorted(names)
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET:
                names.add(address.address)
            elif address.family == socket.AF_INET6 and "%" not in address.address:
                names.add(f"[{address.address}]")
    return sorted(names)


def _reason(log: Path) -> str:
    """The last line of a failed step, which in a Python program is the reason."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    if not lines:
        return ""
    if any("No space left on device" in line for line in lines[-30:]):
        return "The disk is full: free some space and start again. "
    return f"It said: {lines[-1].strip()} "
