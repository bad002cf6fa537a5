"""The product's two sockets to the engine. They take a query and passage **ids**; the library's
take texts. `local` answers them in this process, `remote` through the workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from rerank.types import FloatArray

RerankStatus = Literal["ok", "late", "unavailable", "off", "pending"]
# Why a job is late or unavailable, for machines: too much waits; the worker is missing, went away
# or serves no model; Redis is; the texts cannot be scored; nobody waits; anything else.
RerankCode = Literal[
    "", "overloaded", "no-worker", "worker-stopped", "no-model", "no-broker", "bad-input",
    "cancelled", "late", "failed",
]  # fmt: skip


@dataclass(frozen=True)
class RerankJob:
    """One rerank: passages in first-stage order with their fused scores in [0, 1].

    `instruction` is already rendered (glossary included); "" means none. `deadline` is wall-clock
    seconds since the epoch (`time.time()`): after it nobody reads the answer.
    """

    query: str
    instruction: str
    passage_ids: Sequence[int]
    priors: Sequence[float]
    deadline: float
    model: str = "default"
    # Of the passages; a checkpoint serves no other.
    collection_id: int = 0

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class TextsJob:
    """One rerank of texts that are no passages of ours, as programs send them.

    `instruction`, `deadline`, `model` and `collection_id` as in RerankJob. What is not `urgent`
    waits until no urgent job does.
    """

    query: str
    texts: Sequence[str]
    deadline: float
    instruction: str = ""
    model: str = "default"
    collection_id: int = 0
    urgent: bool = True

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class RerankOutcome:
    """What became of a job; never an exception.

    `logits` and `relevance` align with the job's passage_ids and are empty unless status is ok.
    `reason` is a sentence for the reader of the page, `code` the same for machines; both are empty
    when status is ok. `cached`: pairs whose score was known from before. `tokens`: those the model
    read. `notes`: sentences on what the reranker left out. `tokenize_ms`, `inference_ms` and
    `queue_ms` (all other waiting) add up to the time from submission to answer.
    """

    status: RerankStatus
    reason: str = ""
    logits: Sequence[float] = ()
    relevance: Sequence[float] = ()
    scale: str = ""
    model: str = ""
    device: str = ""
    pairs: int = 0
    truncated: int = 0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    # Younger than some stored searches, which have none of these.
    tokenize_ms: float = 0.0
    cached: int = 0
    tokens: int = 0
    code: RerankCode = ""
    notes: Sequence[str] = field(default_factory=list)

    @property
    def elapsed_ms(self) -> float:
        return self.tokenize_ms + self.queue_ms + self.inference_ms

    def as_json(self) -> dict[str, Any]:
        """Without the scores, which live on the hits."""
        return {k: v for k, v in asdict(self).items() if k not in {"logits", "relevance"}}


@dataclass(frozen=True)
class VectorsOutcome:
    """Unit vectors of many texts, shape (n, dimension), or why there are none."""

    vectors: FloatArray | None
    reason: str = ""
    code: RerankCode = ""
    elapsed_ms: float = 0.0


@dataclass(frozen=True)
class EmbedOutcome:
    """A query's unit vector, or why there is none."""

    vector: FloatArray | None
    reason: str = ""
    elapsed_ms: float = 0.0


class RerankSocket(Protocol):
    def submit(self, job: RerankJob | TextsJob) -> str:
        """Starts the job and returns a ticket at once. Never raises for a missing worker."""
        ...

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        """Waits for the ticket's answer until the deadline at most. A ticket is read once."""
        ...

    def cancel(self, ticket: str) -> None:
        """Nobody waits for the ticket's answer any more. Never raises."""
        ...


class EmbedSocket(Protocol):
    def embed_query(self, text: str, model: str, deadline: float) -> EmbedOutcome:
        """The vector of `text` by the embedder called `model` (a Generation's), prefix included."""
        ...
