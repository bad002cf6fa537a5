"""Who is at work: each worker renews a key in Redis while it lives and its model is loaded."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from searchapp.engine.broker import BrokerDown, connection

logger = logging.getLogger(__name__)

# A worker killed outright is taken for alive this long.
EXPIRES_SECONDS = 12
BEAT_SECONDS = 4.0


@dataclass(frozen=True)
class WorkerInfo:
    """`since` and `seen` are epoch seconds. `model` and `device` are "" where none serves, and
    `reason` then says why. A worker that is `stopping` finishes what it has and takes no more.
    `figures`: of its scorer, such as waiting_rows and tokens_per_second."""

    queue: str
    host: str
    pid: int
    model: str
    device: str
    since: float
    seen: float
    reason: str = ""
    stopping: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


def alive(queue: str) -> list[WorkerInfo]:
    """The queue's workers that take work. Raises BrokerDown."""
    return [worker for worker in at_work(queue) if not worker.stopping]


def at_work(queue: str) -> list[WorkerInfo]:
    """The queue's workers, those that only finish what they have too. Raises BrokerDown."""
    return _read(cast(dict[str, str], connection().hgetall(_key(queue))))


def alive_and_waiting(queue: str, priority: int = 0) -> tuple[list[WorkerInfo], int]:
    """The workers that take work and the messages of one priority that wait for them, in one round
    trip. Raises BrokerDown."""
    pipeline = connection().pipeline(transaction=False)
    # One key per queue: a scan over all of Redis would grow with everything else kept there.
    pipeline.hgetall(_key(queue))
    pipeline.llen(f"{queue}\x06\x16{priority}" if priority else queue)
    entries, waiting = pipeline.execute()
    return [worker for worker in _read(entries) if not worker.stopping], int(waiting)


def is_served(queue: str) -> bool:
    """Whether a worker is ready for the queue; False also when the broker does not answer."""
    try:
        return bool(alive(queue))
    except BrokerDown:
        return False


class Heartbeat:
    """Announces this process for its queues until stopped."""

    def __init__(
        self,
        queues: list[str],
        model: str = "",
        device: str = "",
        reason: str = "",
        figures: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        now = time.time()
        self._infos = [
            WorkerInfo(queue, socket.gethostname(), os.getpid(), model, device, now, now, reason)
            for queue in queues
        ]
        self._figures = figures
        self._wake = threading.Event()
        self._stopping = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def announce_stopping(self) -> None:
        """From now on this worker only finishes what it has. Safe in a signal handler."""
        self._stopping = True
        self._wake.set()

    def stop(self) -> None:
        """Withdraws at once, so that nobody waits for a worker that has said goodbye."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            # A beat under way would announce again what is withdrawn here.
            self._thread.join(timeout=BEAT_SECONDS + 5)
        try:
            for info in self._infos:
                connection().hdel(_key(info.queue), _field(info))
        except BrokerDown:
            logger.info("the broker was gone before this worker could withdraw")

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                self._beat()
            except BrokerDown as error:
                logger.warning("heartbeat not delivered: %s", error)
            if not self._stopped:
                self._wake.wait(BEAT_SECONDS)

    def _beat(self) -> None:
        now = {"seen": time.time(), "stopping": self._stopping, "figures": dict(self._figures())}
        for info in self._infos:
            entry: dict[str, Any] = {**asdict(info), **now}
            key = _key(info.queue)
            connection().hset(key, _field(info), json.dumps(entry))
            connection().expire(key, EXPIRES_SECONDS)
            self._forget_the_dead(key)

    def _forget_the_dead(self, key: str) -> None:
        client = connection()
        entries = cast(dict[str, str], client.hgetall(key))
        dead = [
            field
            for field, entry in entries.items()
            if time.time() - json.loads(entry)["seen"] > EXPIRES_SECONDS
        ]
        if dead:
            client.hdel(key, *dead)


def _read(entries: Mapping[str, str]) -> list[WorkerInfo]:
    now = time.time()
    known = {each.name for each in fields(WorkerInfo)}
    workers = []
    for entry in entries.values():
        # A worker of another version may say more than this one knows.
        facts = {name: value for name, value in json.loads(entry).items() if name in known}
        workers.append(WorkerInfo(**facts))
    return sorted(
        (worker for worker in workers if now - worker.seen < EXPIRES_SECONDS),
        key=lambda worker: (worker.host, worker.pid),
    )


def _key(queue: str) -> str:
    return f"podium:workers:{queue}"


def _field(info: WorkerInfo) -> str:
    return f"{info.host}:{info.pid}"
