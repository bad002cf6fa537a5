"""Messages to the workers, by task name. A broker that is away loses nothing: the sweep finds every
row that waits."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from django.db import transaction
from kombu.exceptions import OperationalError

from searchapp.celery import app
from searchapp.engine import broker
from searchapp.engine.outage import Outage

logger = logging.getLogger(__name__)

INGEST_TASK = "searchapp.tasks.ingest_upload"
EMBED_TASK = "searchapp.tasks.embed_pending"
# Set while a message waits to be taken up, and for no longer than this, should it be lost.
_EMBED_ASKED = "podium:embedding:asked"
_ASKED_SECONDS = 2

_outage = Outage(logger, "every commit sends its own message", "commits share their messages again")


def enqueue_ingest(upload_ids: Iterable[int]) -> None:
    """Sends one message per upload once the surrounding transaction has committed."""
    for upload_id in upload_ids:
        transaction.on_commit(partial(_send, INGEST_TASK, [upload_id], "default"))


def kick_embedding() -> None:
    """Tells the embed worker, after the commit, that passages wait for their vectors.

    One message is enough for any number of commits, until somebody looks for rows again.
    """
    transaction.on_commit(_ask_for_embedding)


def embedding_is_asked() -> bool:
    """Whether passages have come since the last `embedding_begins`."""
    if _outage.paused():
        return False
    try:
        found = broker.hasty_connection().exists(_EMBED_ASKED)
    except broker.BrokerDown as error:
        _outage.begin(error)
        return False
    _outage.end()
    return bool(found)


def embedding_begins(*, once_more: bool = False) -> None:
    """Before somebody looks for rows: a commit after it needs a message of its own.

    `once_more`: in a round of looks, after its first. Only these may be left out while Redis does
    not answer: a message that comes later begins a round of its own, whose first look finds what
    the commits up to then have brought.
    """
    if once_more and _outage.paused():
        return
    try:
        broker.hasty_connection().delete(_EMBED_ASKED)
    except broker.BrokerDown as error:
        _outage.begin(error)  # the mark runs out by itself
    else:
        _outage.end()


def _ask_for_embedding() -> None:
    if _is_first_to_ask():
        _send(EMBED_TASK, [], "embed")


def _is_first_to_ask() -> bool:
    """True where Redis does not say: the sending shows whether the broker takes the message."""
    if _outage.paused():
        return True
    try:
        is_first = broker.hasty_connection().set(_EMBED_ASKED, 1, nx=True, ex=_ASKED_SECONDS)
    except broker.BrokerDown as error:
        _outage.begin(error)
        return True
    _outage.end()
    return bool(is_first)


def waiting_messages(queue: str) -> int | None:
    """How many messages wait in a queue; None when the broker does not answer."""
    try:
        return int(broker.connection().llen(queue))
    except broker.BrokerDown as error:
        logger.warning("the broker does not say how long queue %s is: %s", queue, error)
        return None


def _send(name: str, args: list[int], queue: str) -> None:
    try:
        app.send_task(name, args=args, queue=queue, retry=False)
    except OperationalError as error:
        logger.warning("the broker did not take %s%s: %s", name, args, error)
