"""Both sockets answered by the worker processes. Loads no model and waits for nobody too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from django.conf import settings
from kombu.exceptions import OperationalError

from searchapp.engine import cancelling, luggage, presence, replies
from searchapp.engine.broker import BrokerDown
from searchapp.engine.packed import unpacked
from searchapp.engine.sockets import (
    EmbedOutcome,
    EmbedSocket,
    RerankCode,
    RerankJob,
    RerankOutcome,
    RerankSocket,
    TextsJob,
    VectorsOutcome,
)

logger = logging.getLogger(__name__)

RERANK_TASK = "searchapp.tasks.rerank_passages"
TEXTS_TASK = "searchapp.tasks.rerank_texts"
EMBED_TASK = "searchapp.tasks.embed_query"
VECTORS_TASK = "searchapp.tasks.embed_texts"
# Redis keeps a list per priority and workers look at the first one first; 0 is the default.
NOT_URGENT = 9

NO_WORKER = "No rerank worker is running."
NO_BROKER = "The message broker (Redis) cannot be reached."
NO_EMBED_WORKER = "No embed worker is running."
BUSY = "The reranker is busy: more searches wait for it than it can answer in time."
STOPPED = "The rerank worker stopped during this search."
_KNOWN = {each.name for each in fields(RerankOutcome)}
# Tickets of jobs that were never sent; they say why.
_UNSENT: dict[str, tuple[RerankCode, str]] = {
    "no-worker": ("no-worker", NO_WORKER),
    "no-broker": ("no-broker", NO_BROKER),
    "overloaded": ("overloaded", BUSY),
}


class RemoteReranker:
    """Sends jobs to queue `gpu`; passage ids travel in the message, texts beside it."""

    def submit(self, job: RerankJob | TextsJob) -> str:
        priority = NOT_URGENT if isinstance(job, TextsJob) and not job.urgent else 0
        try:
            workers, waiting = presence.alive_and_waiting("gpu", priority)
            if not workers:
                return "no-worker"
            if waiting >= settings.RERANK_QUEUE_LIMIT:
                return "overloaded"
            ticket = replies.new_ticket()
            if isinstance(job, TextsJob):
                luggage.leave(ticket, job.texts, job.deadline)
                message = {**asdict(job), "submitted": time.time()}
                del message["texts"]
                _send(TEXTS_TASK, "gpu", [ticket, message], job.deadline, priority)
            else:
                _send(RERANK_TASK, "gpu", [ticket, as_message(job)], job.deadline)
        except (BrokerDown, OperationalError, OSError):
            return "no-broker"
        return ticket

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        if ticket in _UNSENT:
            code, reason = _UNSENT[ticket]
            return RerankOutcome("unavailable", reason, code=code)
        waited_from = time.time()
        try:
            answer = replies.wait(ticket, deadline, lambda: bool(presence.at_work("gpu")))
            if answer is None and time.time() < deadline and not presence.at_work("gpu"):
                return RerankOutcome("unavailable", STOPPED, code="worker-stopped")
        except (BrokerDown, OSError):
            return RerankOutcome("unavailable", NO_BROKER, code="no-broker")
        if answer is None:
            self.cancel(ticket)
            return late(max(deadline - waited_from, 0.0))
        # A worker of another version may say more than this process knows.
        return RerankOutcome(**{key: answer[key] for key in answer.keys() & _KNOWN})

    def cancel(self, ticket: str) -> None:
        try:
            cancelling.cancel(ticket)
        except (BrokerDown, OSError) as error:
            logger.info("a rerank could not be cancelled: %s", error)


class RemoteEmbedder:
    """Sends queries to queue `embed`."""

    def embed_query(self, text: str, model: str, deadline: float) -> EmbedOutcome:
        started = time.time()
        ticket = replies.new_ticket()
        try:
            if not presence.alive("embed"):
                return EmbedOutcome(None, NO_EMBED_WORKER)
            _send(EMBED_TASK, "embed", [ticket, text, model, deadline], deadline)
            answer = replies.wait(ticket, deadline)
        except (BrokerDown, OperationalError, OSError):
            return EmbedOutcome(None, NO_BROKER)
        elapsed_ms = (time.time() - started) * 1000
        if answer is None:
            reason = f"The embed worker did not answer within {_seconds(deadline - started)}."
            return EmbedOutcome(None, reason, elapsed_ms)
        if answer["vector"] is None:
            return EmbedOutcome(None, str(answer["reason"]), elapsed_ms)
        vector = np.asarray(answer["vector"], dtype=np.float32)
        return EmbedOutcome(vector, "", elapsed_ms)


def embed_texts(
    texts: Sequence[str], model: str, deadline: float, *, as_queries: bool, urgent: bool = True
) -> VectorsOutcome:
    """Unit vectors of texts by a worker. Never raises."""
    ticket = replies.new_ticket()
    try:
        if not presence.alive("embed"):
            return VectorsOutcome(None, NO_EMBED_WORKER, "no-worker")
        luggage.leave(ticket, texts, deadline)
        arguments = [ticket, model, as_queries, deadline]
        _send(VECTORS_TASK, "embed", arguments, deadline, 0 if urgent else NOT_URGENT)
        waited_from = time.time()
        answer = replies.wait(ticket, deadline, lambda: bool(presence.at_work("embed")))
    except (BrokerDown, OperationalError, OSError):
        return VectorsOutcome(None, NO_BROKER, "no-broker")
    if answer is None:
        waited = _seconds(time.time() - waited_from)
        return VectorsOutcome(None, f"The embed worker did not answer within {waited}.", "late")
    return unpacked(answer)


def reranker() -> RerankSocket:
    return RemoteReranker()


def embedder() -> EmbedSocket:
    return RemoteEmbedder()


def late(seconds: float) -> RerankOutcome:
    reason = f"The reranker did not answer within {_seconds(seconds)}."
    return RerankOutcome("late", reason, code="late")


def as_message(job: RerankJob) -> dict[str, Any]:
    """The job as JSON; `from_message` is the inverse."""
    return {
        **asdict(job),
        "passage_ids": [int(passage) for passage in job.passage_ids],
        "priors": [float(prior) for prior in job.priors],
        "submitted": time.time(),
    }


def from_message(message: dict[str, Any]) -> tuple[RerankJob, float]:
    """The job, and when it was submitted (epoch seconds)."""
    # A web process of another version may say more than this worker knows.
    known = {each.name for each in fields(RerankJob)}
    job = RerankJob(**{key: value for key, value in message.items() if key in known})
    return job, float(message["submitted"])


def _send(task: str, queue: str, arguments: list[Any], deadline: float, priority: int = 0) -> None:
    from searchapp.celery import app

    # Past its deadline nobody reads the answer, so a worker that comes to it later drops it.
    expires = max(deadline - time.time(), 0.001)
    app.send_task(
        task,
        args=arguments,
        queue=queue,
        expires=expires,
        priority=priority,
        ignore_result=True,
        retry=False,
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 2 else f"{max(seconds, 0.0):.1f} s"
