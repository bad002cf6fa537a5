"""What each kind of rerank endpoint reads and answers. Pure functions, no network.

All of them take POST with JSON and answer (index, score) pairs, best first; they differ in names
and limits. None has a field for an instruction: the query carries it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank.errors import EndpointError
from rerank.types import FloatArray

Fields = Mapping[str, Any]
Floats = NDArray[np.float64]

# Scores nearer than this to 0 or 1 have a logit of at most 27.6 in size.
EDGE = 1e-12
# Raw scores beyond this are held to it, so that float32 keeps them finite and apart.
LARGEST_RAW = 1e6
# The raw score of a document that is not sent, because it is blank.
BLANK_RAW = -100.0


@dataclass(frozen=True)
class Dialect:
    """One kind of endpoint.

    `path` completes a bare host. `documents_key`, `results_key` ("" for a bare list), `score_key`:
    its names. `fields` go into every request. `raw_fields` ask for the model's raw scores; None
    where that cannot be asked for. `max_documents` and `max_request_bytes` bound one request;
    `counts_pairs`: its bytes are 150 + query + document for each document.
    """

    name: str
    path: str
    documents_key: str = "documents"
    results_key: str = "results"
    score_key: str = "relevance_score"
    fields: Fields = field(default_factory=dict)
    raw_fields: Fields | None = None
    needs_model: bool = True
    max_documents: int = 1000
    max_request_bytes: int = 5_000_000
    counts_pairs: bool = False


# The limits are the services' published ones; where there is none, or where whoever runs the server
# chooses it, its default or 1,000 documents and 5 MB.
DIALECTS = {
    dialect.name: dialect
    for dialect in [
        Dialect("zeroentropy", "/v1/models/rerank", counts_pairs=True),
        Dialect("cohere", "/v2/rerank"),
        Dialect("jina", "/v1/rerank", fields={"return_documents": False}),
        Dialect(
            "voyage",
            "/v1/rerank",
            results_key="data",
            fields={"return_documents": False, "truncation": True},
        ),
        Dialect(
            "tei",
            "/rerank",
            documents_key="texts",
            results_key="",
            score_key="score",
            fields={"truncate": True},
            raw_fields={"raw_scores": True},
            needs_model=False,
            max_documents=32,
            max_request_bytes=2_000_000,
        ),
        Dialect(
            "vllm",
            "/v1/rerank",
            # -1: cut to what the model reads; without it one long document fails the request.
            fields={"truncate_prompt_tokens": -1},
            raw_fields={"use_activation": False},
        ),
        Dialect(
            "infinity",
            "/rerank",
            fields={"return_documents": False},
            raw_fields={"raw_scores": True},
        ),
    ]
}


@dataclass(frozen=True)
class Answer:
    """`scores` in the order of the documents sent, `tokens` as the endpoint counts, 0 unknown."""

    scores: list[float]
    tokens: int = 0


def request_body(
    dialect: Dialect,
    model: str,
    query: str,
    documents: Sequence[str],
    raw_scores: bool = False,
    extra: Fields | None = None,
) -> dict[str, Any]:
    """The JSON of one request. `extra` wins over the dialect's own optional fields, never over the
    query, the documents and the model."""
    body = {**dialect.fields, **((dialect.raw_fields or {}) if raw_scores else {}), **(extra or {})}
    if model:
        body["model"] = model
    return {**body, "query": query, dialect.documents_key: list(documents)}


def essential_fields(dialect: Dialect) -> set[str]:
    """What `extra` cannot set."""
    return {"query", "model", dialect.documents_key}


def read_answer(dialect: Dialect, answer: Any, count: int) -> Answer:
    """Scores of `count` documents. Raises EndpointError unless each has exactly one number."""
    results = answer
    if dialect.results_key:
        results = answer.get(dialect.results_key) if isinstance(answer, Mapping) else None
    if not isinstance(results, list):
        wanted = f"a list {dialect.results_key!r}" if dialect.results_key else "a bare list"
        raise EndpointError(
            f"The answer holds no scores: the dialect {dialect.name} answers with {wanted}."
        )
    scores: dict[int, float] = {}
    for result in results:
        place, score = _index_and_score(dialect, result)
        if not 0 <= place < count:
            raise EndpointError(f"The answer scores document {place} of a request of {count}.")
        if place in scores:
            raise EndpointError(f"The answer scores document {place} twice.")
        scores[place] = score
    if len(scores) < count:
        raise EndpointError(f"The answer scores {len(scores)} of the {count} documents sent.")
    return Answer([scores[place] for place in range(count)], _tokens(answer))


def _index_and_score(dialect: Dialect, result: Any) -> tuple[int, float]:
    if not isinstance(result, Mapping):
        raise EndpointError("The answer's scores are no objects with an index.")
    place, score = result.get("index"), result.get(dialect.score_key)
    if type(place) is not int:
        raise EndpointError(f"The answer names a document by {_short(place)}, which is no index.")
    number = _number(score)
    if number is None:
        raise EndpointError(f"The answer's score of document {place} is {_short(score)}.")
    return place, number


def _number(value: Any) -> float | None:
    """None for what is no finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _tokens(answer: Any) -> int:
    """The endpoint's own count, wherever it writes it."""
    if not isinstance(answer, Mapping):
        return 0
    meta = answer.get("meta")
    for place, key in [
        (answer, "total_tokens"),
        (answer.get("usage"), "total_tokens"),
        (meta.get("tokens") if isinstance(meta, Mapping) else None, "input_tokens"),
    ]:
        count = _number(place.get(key)) if isinstance(place, Mapping) else None
        if count is not None and count > 0:
            return int(count)
    return 0


def plan_parts(
    document_bytes: Sequence[int],
    query_bytes: int,
    max_documents: int,
    max_bytes: int,
    counts_pairs: bool = False,
) -> Iterator[range]:
    """Consecutive places 0..n-1 in as few requests as the limits allow, at least one in each.

    A document larger than `max_bytes` goes alone, and the endpoint says what it thinks of it.
    """
    per_document = 150 + query_bytes if counts_pairs else 4
    per_request = 1000 if counts_pairs else 1000 + query_bytes
    first, filled = 0, per_request
    for place, size in enumerate(document_bytes):
        cost = size + per_document
        if place > first and (place - first >= max_documents or filled + cost > max_bytes):
            yield range(first, place)
            first, filled = place, per_request
        filled += cost
    if first < len(document_bytes):
        yield range(first, len(document_bytes))


def logits_and_relevance(scores: Floats, raw_scores: bool) -> tuple[FloatArray, FloatArray]:
    """Both float32, in the order of `scores`, and sorting alike.

    Raw scores are the logits, relevance their sigmoid. Other scores, clipped to [0, 1], are the
    relevance, and the logit is the inverse sigmoid, at most 27.6 in size. Some models answer
    slightly outside [0, 1]: the excess is added to the logit, so that the order stays.
    """
    scores = np.clip(scores, -LARGEST_RAW, LARGEST_RAW)
    if raw_scores:
        return scores.astype(np.float32), sigmoid(scores).astype(np.float32)
    relevance = np.clip(scores, 0.0, 1.0)
    logits = inverse_sigmoid(relevance) + (scores - relevance)
    return logits.astype(np.float32), relevance.astype(np.float32)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)


def inverse_sigmoid(relevance: Floats) -> Floats:
    """The logit of probabilities, those at 0 and 1 moved in by 1e-12."""
    inside = np.clip(relevance, EDGE, 1.0 - EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside), dtype=np.float64)
