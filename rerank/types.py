"""The records and sockets of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# query id -> document id -> score, the shape every evaluation tool accepts
Run = Mapping[str, Mapping[str, float]]
# query id -> document id -> grade
Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class RerankRequest:
    """One query and its candidates, in first-stage order.

    `priors` are the first stage's fused scores in [0, 1], one per document; rerankers that score
    text alone ignore them. `instruction` None and "" both mean none.
    """

    query: str
    documents: Sequence[str]
    instruction: str | None = None
    priors: Sequence[float] | None = None


@dataclass(frozen=True)
class RerankScores:
    """Scores in the order of the request's documents.

    `logits`: the model's raw output, shape (n,). `relevance`: the model family's published map of
    the logits to [0, 1], shape (n,); `scale` says what that number is ("cosine": a mean
    likeness of words, which orders documents and is no probability; "rank": it falls with the final
    rank and means nothing else). `truncated`: how many documents were cut to fit. `tokens`:
    tokens the model read. `notes`: sentences on what the reranker left out, for people.
    """

    logits: FloatArray
    relevance: FloatArray
    scale: Literal["published", "sigmoid", "cosine", "untrained", "rank"]
    truncated: int = 0
    tokens: int = 0
    tokenize_ms: float = 0.0
    inference_ms: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """What a page may say about a model: `name` short, `description` one honest sentence.

    `revision` changes whenever scores may change (weights, backend, number format); "" for a model
    that cannot tell, whose scores are therefore never kept.
    """

    name: str
    description: str
    device: str
    dtype: str
    follows_instructions: bool | None = None
    revision: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


class Reranker(Protocol):
    """(query, documents) -> scores. Scores of one document never depend on the others'."""

    @property
    def card(self) -> ModelCard: ...

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput, DeviceError. An empty list of documents gives empty arrays."""
        ...


@dataclass(eq=False)
class Prepared:
    """A request tokenised for one model, before any of its rows was scored.

    `rows`: one per document, in the model's own form; `lengths`: tokens of each, which is what it
    costs. `prompt`: the query with its instruction as the model reads it, for cache keys. `shared`
    belongs to the model: what it keeps for all rows of this request between batches.
    """

    request: RerankRequest
    rows: Sequence[Any]
    lengths: Sequence[int]
    prompt: str
    truncated: int = 0
    tokenize_ms: float = 0.0
    shared: Any = None


# A document on its way through a model: its request, and its place there.
Row = tuple[Prepared, int]


class BatchReranker(Reranker, Protocol):
    """A reranker whose work can be divided: rows of several requests go through it together.

    `prepare` and `finish` may run in any thread, `run` only in the one that owns the model.
    """

    @property
    def budget(self) -> int:
        """Tokens of one batch, padding included; smaller after memory ran out."""
        ...

    def prepare(self, request: RerankRequest) -> Prepared:
        """Raises BadInput."""
        ...

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """The raw value of each row, shape (rows,), whatever stands beside it in the batch."""
        ...

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        """Raw values -> scores, with the request's priors where the model uses them; lets go of
        `shared`. `inference_ms` is left to the caller. Raises BadInput for values that are no
        numbers."""
        ...

    def is_memory_error(self, error: BaseException) -> bool:
        """Whether a smaller batch might have helped; the model has then lowered its budget."""
        ...


class Embedder(Protocol):
    """texts -> unit vectors, shape (n, dimension), float32."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed_queries(self, texts: Sequence[str]) -> FloatArray: ...

    def embed_documents(self, texts: Sequence[str]) -> FloatArray: ...
