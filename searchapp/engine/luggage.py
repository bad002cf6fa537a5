"""Texts on their way to a worker. They lie in Redis under the job's ticket while the message names
only that: a message is copied several times on its way, and megabytes of text would be too."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from searchapp.engine.broker import connection

# Longer than the job's deadline by this, so that whoever comes in time finds them.
SPARE_SECONDS = 5


def leave(ticket: str, texts: Sequence[str], deadline: float) -> None:
    """Gone by themselves soon after the deadline (epoch seconds). Raises BrokerDown."""
    seconds = max(1, int(deadline - time.time())) + SPARE_SECONDS
    connection().set(_key(ticket), json.dumps(list(texts), ensure_ascii=False), ex=seconds)


def take(ticket: str) -> list[str] | None:
    """The texts, once; None when they were taken or have expired. Raises BrokerDown."""
    pipeline = connection().pipeline(transaction=True)
    pipeline.get(_key(ticket))
    pipeline.delete(_key(ticket))
    found: Any = pipeline.execute()[0]
    return None if found is None else [str(text) for text in json.loads(found)]


def _key(ticket: str) -> str:
    return f"podium:texts:{ticket}"
