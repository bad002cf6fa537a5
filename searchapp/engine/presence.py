"""Who is at work: each worker renews a key in Redis while it lives and its model is loaded."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

from searchapp.engine.broker import BrokerDown, connection

logger = logging.getLogger(__name__)

# A worker killed outright is taken for alive this long.
EXPIRES_SECONDS = 12
BEAT_SECONDS = 4.0


@dataclass(frozen=True)
class WorkerInfo:
    """`since` and `seen` are epoch seconds. `model` and `device` are "" where none is loaded."""

    queue: str
    host: str
    pid: int
    model: str
    device: str
    since: float
    seen: float


def alive(queue: str) -> list[WorkerInfo]:
    """The queue's workers that are ready for work. Raises BrokerDown."""
    client = connection()
    now = time.time()
    # One key per queue: a scan over all of Redis would grow with everything else kept there.
    entries = cast(dict[str, str], client.hgetall(_key(queue)))
    workers = [WorkerInfo(**json.loads(entry)) for entry in entries.values()]
    return sorted(
        (worker for worker in workers if now - worker.seen < EXPIRES_SECONDS),
        key=lambda worker: (worker.host, worker.pid),
    )


def is_served(queue: str) -> bool:
    """Whether a worker is ready for the queue; False also when the broker does not answer."""
    try:
        return bool(alive(queue))
    except BrokerDown:
        return False


class Heartbeat:
    """Announces this process for its queues until stopped."""

    def __init__(self, queues: list[str], model: str = "", device: str = "") -> None:
        now = time.time()
        self._infos = [
            WorkerInfo(queue, socket.gethostname(), os.getpid(), model, device, now, now)
            for queue in queues
        ]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Withdraws at once, so that nobody waits for a worker that has said goodbye."""
        self._stopped.set()
        if self._thread.is_alive():
            # A beat under way would announce again what is withdrawn here.
            self._thread.join(timeout=BEAT_SECONDS + 5)
        try:
            for info in self._infos:
                connection().hdel(_key(info.queue), _field(info))
        except BrokerDown:
            logger.info("the broker was gone before this worker could withdraw")

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._beat()
            except BrokerDown as error:
                logger.warning("heartbeat not delivered: %s", error)
            self._stopped.wait(BEAT_SECONDS)

    def _beat(self) -> None:
        for info in self._infos:
            entry: dict[str, Any] = {**asdict(info), "seen": time.time()}
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


def _key(queue: str) -> str:
    return f"podium:workers:{queue}"


def _field(info: WorkerInfo) -> str:
    return f"{info.host}:{info.pid}"
