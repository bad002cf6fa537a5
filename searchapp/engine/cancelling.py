"""Reranks that nobody waits for any more: said by the web process, heard by the workers.

A cancelled ticket is a key in Redis that expires by itself. A worker asks for all tickets it has in
hand at once, in a thread of its own, so that the model never waits for the broker.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from searchapp.engine.broker import BrokerDown, connection

logger = logging.getLogger(__name__)

# Longer than any job waits in a queue.
KEPT_SECONDS = 120
LOOK_SECONDS = 0.1
# After a failure the broker is left alone this long.
PAUSE_SECONDS = 2.0

_TICKET = re.compile(r"[0-9a-f]{32}")


def cancel(ticket: str) -> None:
    """Raises BrokerDown."""
    if _TICKET.fullmatch(ticket):
        connection().set(_key(ticket), 1, ex=KEPT_SECONDS)


def is_cancelled(ticket: str) -> bool:
    """False also when the broker does not answer."""
    try:
        return bool(connection().exists(_key(ticket)))
    except BrokerDown:
        return False


class Watch:
    """Looks for the tickets in hand while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: dict[str, threading.Event] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def on(self, ticket: str) -> Iterator[Callable[[], bool]]:
        """Whether the ticket was cancelled; the answer is at most LOOK_SECONDS old, and free."""
        cancelled = threading.Event()
        if is_cancelled(ticket):
            cancelled.set()
        with self._changed:
            self._tickets[ticket] = cancelled
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cancelling", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        try:
            yield cancelled.is_set
        finally:
            with self._changed:
                self._tickets.pop(ticket, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._tickets:
                    self._changed.wait()
                tickets = dict(self._tickets)
            pause = LOOK_SECONDS
            try:
                found = connection().mget([_key(ticket) for ticket in tickets])
            except BrokerDown as error:
                logger.info("cancelled reranks are not known for now: %s", error)
                found, pause = [], PAUSE_SECONDS
            for event, value in zip(tickets.values(), found, strict=False):
                if value is not None:
                    event.set()
            time.sleep(pause)


def _key(ticket: str) -> str:
    return f"podium:cancelled:{ticket}"
