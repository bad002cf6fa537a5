"""What serves the requests of many threads with one reranker: the records and the socket. No
torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rerank.errors import Cancelled
from rerank.types import ModelCard, RerankRequest, RerankScores

STOPPING = "The reranker is stopping and takes no new work."
NOBODY_WAITS = "Nobody waits for this rerank any more."
TOO_LATE = "The reranker came to this search too late."


@dataclass(frozen=True)
class Limits:
    """What may wait at most. One request alone may be longer than `tokens`.

    `calls` under way at once, for rerankers that only answer whole requests.
    """

    requests: int = 256
    tokens: int = 2_000_000
    calls: int = 8


@dataclass(frozen=True)
class Scored:
    """Scores and what it took. `scores.tokenize_ms`, `queue_ms` and `scores.inference_ms` add up to
    the whole time: inference is that of the batches which held its rows, queue all other waiting.
    `cached`: documents whose score was known from before."""

    scores: RerankScores
    queue_ms: float = 0.0
    cached: int = 0


@dataclass(frozen=True)
class ScorerStats:
    """`waiting_*`: accepted and not yet scored. `tokens_per_second`: of the latest batches."""

    waiting_requests: int = 0
    waiting_rows: int = 0
    waiting_tokens: int = 0
    batches: int = 0
    rows: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0

    @property
    def rows_per_batch(self) -> float:
        return self.rows / self.batches if self.batches else 0.0


class Scoring(Protocol):
    """What serves requests of many threads with one reranker."""

    @property
    def card(self) -> ModelCard: ...

    def scored(
        self,
        request: RerankRequest,
        deadline: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Scored:
        """Blocks until scored. `deadline`: seconds since the epoch. `cancelled` is asked often and
        must answer at once. Raises BadInput, DeviceError, Overloaded, Cancelled."""
        ...

    def score(self, request: RerankRequest) -> RerankScores: ...

    def stats(self) -> ScorerStats: ...

    def drain(self, timeout: float) -> bool:
        """Takes nothing new and finishes what was accepted; whether it got done in time."""
        ...


def unwanted(deadline: float | None, cancelled: Callable[[], bool] | None) -> Cancelled | None:
    """Why a request need not be served, if so."""
    if cancelled is not None and cancelled():
        return Cancelled(NOBODY_WAITS)
    if deadline is not None and time.time() > deadline:
        return Cancelled(TOO_LATE)
    return None
