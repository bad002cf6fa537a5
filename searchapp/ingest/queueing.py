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

logger = logging.getLogger(__name__)

INGEST_TASK = "searchapp.tasks.ingest_upload"
EMBED_TASK = "searchapp.tasks.embed_pending"
# Set while a message waits to be taken up, and for no longer than this, should it be lost.
_EMBED_ASKED = "podium:embedding:asked"
_ASKED_SECONDS = 2


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
    try:
        return bool(broker.hasty_connection().exists(_EMBED_ASKED))
    except broker.BrokerDown:
        return False


def embedding_begins() -> None:
    """Before somebody looks for rows: a commit after it needs a message of its own."""
    try:
        broker.hasty_connection().delete(_EMBED_ASKED)
    except broker.BrokerDown as error:
        logger.info("the mark of a waiting message is left to run out: %s", error)


def _ask_for_embedding() -> None:
    try:
        is_first = broker.hasty_connection().set(_EMBED_ASKED, 1, nx=True, ex=_ASKED_SECONDS)
    except broker.BrokerDown:
        is_first = True  # the sending below says what is wrong
    if is_first:
        _send(EMBED_TASK, [], "embed")


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
