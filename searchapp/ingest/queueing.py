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


def enqueue_ingest(upload_ids: Iterable[int]) -> None:
    """Sends one message per upload once the surrounding transaction has committed."""
    for upload_id in upload_ids:
        transaction.on_commit(partial(_send, INGEST_TASK, [upload_id], "default"))


def kick_embedding() -> None:
    """Tells the embed worker, after the commit, that passages wait for their vectors."""
    transaction.on_commit(partial(_send, EMBED_TASK, [], "embed"))


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
