"""Answers of the workers: each travels on a Redis list of its own, named by its ticket.

Celery's result backend would keep results nobody reads and poll for those somebody does; a list is
popped by its one reader the moment it is filled, and expires by itself.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from searchapp.engine.broker import connection

# An answer nobody came for is forgotten after this.
KEPT_SECONDS = 60
# One blocking read at most; below the socket's own limit, and how often `still_hoped` is asked.
SLICE_SECONDS = 1.0

_TICKET = re.compile(r"[0-9a-f]{32}")


def new_ticket() -> str:
    return uuid.uuid4().hex


def push(ticket: str, answer: dict[str, Any]) -> None:
    """Leaves the answer for its reader. Raises BrokerDown."""
    pipeline = connection().pipeline(transaction=True)
    pipeline.lpush(_key(ticket), json.dumps(answer))
    pipeline.expire(_key(ticket), KEPT_SECONDS)
    pipeline.execute()


def wait(
    ticket: str, deadline: float, still_hoped: Callable[[], bool] = lambda: True
) -> dict[str, Any] | None:
    """The answer, once; None when the deadline (epoch seconds) passed or hope was given up.

    An answer that is there is returned even after the deadline. Raises BrokerDown.
    """
    if not _TICKET.fullmatch(ticket):
        return None
    client, key = connection(), _key(ticket)
    found: Any = client.lpop(key)
    while found is None:
        left = deadline - time.time()
        if left <= 0:
            return None
        popped: Any = client.blpop([key], timeout=max(min(left, SLICE_SECONDS), 0.01))
        if popped is not None:
            found = popped[1]
        elif not still_hoped():
            return None
    answer: dict[str, Any] = json.loads(found)
    return answer


def _key(ticket: str) -> str:
    return f"podium:reply:{ticket}"
