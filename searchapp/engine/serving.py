"""The workers' side of `remote`: a message in, an answer on its reply list."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, replace
from typing import Any

from rerank.errors import RerankError
from searchapp.engine import checkpoints, gate, local, luggage, replies
from searchapp.engine.cancelling import Watch
from searchapp.engine.packed import packed
from searchapp.engine.remote import from_message
from searchapp.engine.sockets import RerankJob, RerankOutcome, TextsJob

_watch = Watch()
# Checkpoints that passed their checks in this process, or failed them.
_examined: set[str] = set()
_examining = threading.Lock()


def answer_rerank(ticket: str, message: dict[str, Any]) -> str:
    """Scores the job and leaves the outcome for its reader; the outcome's status."""
    job, submitted = from_message(message)
    if checkpoints.is_checkpoint(job.model):
        examine(job.model, job.collection_id)
    return _answer(ticket, job, submitted)


def answer_texts(ticket: str, message: dict[str, Any]) -> str:
    """As `answer_rerank`, for a TextsJob whose texts were left under its ticket."""
    fields = dict(message)
    submitted = float(fields.pop("submitted"))
    texts = luggage.take(ticket)
    if texts is None:
        return "late"
    return _answer(ticket, TextsJob(texts=texts, **fields), submitted)


def _answer(ticket: str, job: RerankJob | TextsJob, submitted: float) -> str:
    with _watch.on(ticket) as cancelled:
        outcome: RerankOutcome = local.rerank(job, cancelled)
    elapsed_ms = (time.time() - submitted) * 1000
    queue_ms = max(elapsed_ms - outcome.tokenize_ms - outcome.inference_ms, 0.0)
    replies.push(ticket, asdict(replace(outcome, queue_ms=queue_ms)))
    return outcome.status


def examine(model: str, collection_id: int) -> None:
    """Loads and checks a checkpoint before its first search in this process: the default model was
    checked at the start, but a checkpoint may be younger. What went wrong, the rerank says."""
    with _examining:
        if model in _examined:
            return
        try:
            gate.admit(model, collection_id)
        except local.ModelRefused:
            pass
        except RerankError:
            return  # such as missing files, which may come back
        _examined.add(model)


def answer_query(ticket: str, text: str, model: str, deadline: float) -> str:
    """Embeds the query and leaves its vector; "late" without doing so past the deadline."""
    if time.time() > deadline:
        return "late"
    outcome = local.embed_query(text, model)
    vector = None if outcome.vector is None else [float(value) for value in outcome.vector]
    replies.push(ticket, {"vector": vector, "reason": outcome.reason})
    return "unavailable" if vector is None else "ok"


def answer_vectors(ticket: str, model: str, as_queries: bool, deadline: float) -> str:
    """Embeds the texts left under the ticket; "late" without doing so past the deadline."""
    texts = luggage.take(ticket)
    if texts is None or time.time() > deadline:
        return "late"
    outcome = local.embed_texts(texts, model, as_queries=as_queries)
    replies.push(ticket, packed(outcome))
    return "unavailable" if outcome.vectors is None else "ok"
