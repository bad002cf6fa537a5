"""Texts embedded for a program: the one call behind every dialect's embedding endpoint."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from rerank.errors import RerankError
from rerank.inference.models import ModelFacts, canonical_name, embedder_facts
from rerank.types import FloatArray
from searchapp.engine import remote
from searchapp.ingest.tokens import count_all, token_counter

from .auth import Caller
from .limits import Latency, charge, cost_of_texts
from .models_rerank import seconds_for
from .refusals import Refusal

MAX_TEXTS = 2048


@dataclass(frozen=True)
class Embedded:
    """`vectors`: unit vectors in the order of the texts, shape (n, dimension). `tokens`: those the
    model read, without special ones."""

    vectors: FloatArray
    model: str
    bytes: int
    tokens: int


def embed(
    caller: Caller,
    *,
    model: str,
    texts: Sequence[str],
    as_queries: bool,
    dimensions: int | None = None,
    latency: Latency | None = None,
) -> Embedded | Refusal:
    """400 for too many texts or a length of vectors the model has not, 404 for an unknown model,
    429 above the key's limits, 503 without a worker, 504 past the deadline."""
    name = canonical_name(settings.EMBED_MODEL)
    if model not in {"default", name, settings.EMBED_MODEL} or not model:
        return Refusal(
            404,
            "unknown-model",
            f"There is no embedder “{model[:200]}” here; “default” is the one this server serves.",
        )
    try:
        facts = embedder_facts(settings.EMBED_MODEL)
    except RerankError as error:
        return Refusal(503, "no-model", str(error), retry_after=10.0)
    if dimensions is not None and dimensions != facts.dimension:
        return Refusal(
            400,
            "bad-dimensions",
            f"This server's embedder makes vectors of length {facts.dimension} only, "
            f"not {dimensions}.",
        )
    if len(texts) > MAX_TEXTS:
        return Refusal(
            400, "too-many", f"These are {len(texts):,} texts; {MAX_TEXTS:,} are the most."
        )
    cost = cost_of_texts(texts)
    granted = charge(caller, cost, latency)
    if isinstance(granted, Refusal):
        return granted
    if not texts:
        empty: NDArray[Any] = np.zeros((0, facts.dimension), np.float32)
        return Embedded(empty, facts.name, cost.bytes, 0)
    made = remote.embed_texts(
        texts,
        "default",
        time.time() + seconds_for(granted.latency),
        as_queries=as_queries,
        urgent=granted.latency == "fast",
    )
    if made.vectors is None:
        status = {"late": 504, "failed": 500, "bad-input": 400}.get(made.code, 503)
        wait = 1.0 if status > 500 else None
        return Refusal(status, made.code or "unavailable", made.reason, retry_after=wait)
    tokens = _tokens(texts, facts)
    caller.meter.tokens += tokens
    return Embedded(made.vectors, facts.name, cost.bytes, tokens)


def as_base64(vector: FloatArray) -> str:
    """Its float32 numbers, little-endian."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()


def _tokens(texts: Sequence[str], facts: ModelFacts) -> int:
    counter = token_counter(str(facts.tokenizer_file))
    return sum(min(count, facts.max_tokens) for count in count_all(texts, counter))
