"""Texts reranked for a program: the one call behind every dialect's rerank endpoint."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from searchapp.engine import remote
from searchapp.engine.sockets import RerankOutcome, TextsJob

from .auth import Caller
from .limits import Latency, charge, cost_of_rerank
from .models_named import Chosen, chosen
from .refusals import Refusal

# Slow calls may wait for most of a minute; half of the web threads stay free for the others.
_SLOW_AT_ONCE = max(1, int(os.environ.get("WEB_THREADS", "16")) // 2)
_slow_places = threading.BoundedSemaphore(_SLOW_AT_ONCE)

CROWDED = Refusal(
    429, "crowded", "Too many slow requests wait already. Try again in a moment.", retry_after=2.0
)


@dataclass(frozen=True)
class Reranked:
    """`order`: (index of the document, its score in [0, 1]), best first; equal scores keep the
    order given. `raw`: the model's own scores on its own scale, in the same order. `seconds` is
    the whole call, `inference_seconds` the model's part of it. `bytes` as limits count them,
    `tokens` those the model read. `truncated`: documents that were cut to fit."""

    order: Sequence[tuple[int, float]]
    raw: Sequence[float]
    latency: Latency
    model: str
    seconds: float
    inference_seconds: float
    bytes: int
    tokens: int
    truncated: int = 0


def rerank(
    caller: Caller,
    *,
    model: str,
    query: str,
    documents: Sequence[str],
    instruction: str = "",
    top_n: int | None = None,
    latency: Latency | None = None,
) -> Reranked | Refusal:
    """`model`: see `models_named`. `instruction` "": that of the model's collection, if it has one.
    `latency` None: fast, and slow where fast is used up or overloaded.

    400 for what cannot be scored, 404 for an unknown model, 429 above the key's limits, 503 without
    a worker, 504 past the deadline.
    """
    began = time.perf_counter()
    if top_n is not None and top_n < 1:
        return Refusal(400, "bad-top-n", f"top_n is {top_n}; it must be at least 1.")
    picked = chosen(caller, model)
    if isinstance(picked, Refusal):
        return picked
    cost = cost_of_rerank(query, documents)
    granted = charge(caller, cost, latency)
    if isinstance(granted, Refusal):
        return granted
    mode = granted.latency
    asked = instruction or picked.instruction
    outcome = _scored(query, documents, asked, picked, mode) if documents else RerankOutcome("ok")
    if isinstance(outcome, RerankOutcome) and outcome.code == "overloaded" and latency is None:
        mode = "slow"
        outcome = _scored(query, documents, asked, picked, mode)
    if isinstance(outcome, Refusal):
        return outcome
    if outcome.status != "ok":
        return refusal_of(outcome)
    caller.meter.tokens += outcome.tokens
    scores = picked.scores(outcome)
    order = sorted(range(len(scores)), key=lambda index: -outcome.logits[index])[:top_n]
    return Reranked(
        order=[(index, scores[index]) for index in order],
        raw=[outcome.logits[index] for index in order],
        latency=mode,
        model=outcome.model,
        seconds=time.perf_counter() - began,
        inference_seconds=outcome.inference_ms / 1000,
        bytes=cost.bytes,
        tokens=outcome.tokens,
        truncated=outcome.truncated,
    )


def refusal_of(outcome: RerankOutcome) -> Refusal:
    """What a caller is told about a rerank that did not come. Names that are not offered were
    refused before: a model that a worker lacks is the server's fault."""
    sentence = outcome.reason or "The reranker did not answer."
    if outcome.code == "bad-input":
        return Refusal(400, "bad-input", sentence)
    if outcome.status == "late":
        return Refusal(504, "late", sentence, retry_after=1.0)
    if outcome.code == "failed":
        return Refusal(500, "failed", sentence)
    return Refusal(503, outcome.code or "unavailable", sentence, retry_after=1.0)


def seconds_for(latency: Latency) -> float:
    """How long a call of this mode may wait for its worker."""
    fast = latency == "fast"
    return (settings.RERANK_DEADLINE_MS if fast else settings.API_SLOW_DEADLINE_MS) / 1000


def _scored(
    query: str, documents: Sequence[str], instruction: str, picked: Chosen, mode: Latency
) -> RerankOutcome | Refusal:
    job = TextsJob(
        query=query,
        texts=documents,
        deadline=time.time() + seconds_for(mode),
        instruction=instruction,
        model=picked.model,
        collection_id=picked.collection.pk if picked.collection is not None else 0,
        urgent=mode == "fast",
    )
    if mode == "fast":
        return _sent(job)
    if not _slow_places.acquire(blocking=False):
        return CROWDED
    try:
        return _sent(job)
    finally:
        _slow_places.release()


def _sent(job: TextsJob) -> RerankOutcome:
    socket = remote.reranker()
    return socket.collect(socket.submit(job), job.deadline)
