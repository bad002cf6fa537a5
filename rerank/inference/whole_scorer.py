"""Rerankers that answer whole requests, such as remote endpoints, for many threads. No torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rerank.errors import Overloaded
from rerank.inference.scoring import STOPPING, Limits, Scored, ScorerStats, unwanted
from rerank.types import ModelCard, Reranker, RerankRequest, RerankScores

# How often a waiting thread looks whether it waits in vain.
_LOOK_SECONDS = 0.05


class WholeScorer:
    """The `Scoring` of any reranker: a few calls at once, each in the thread that asks."""

    def __init__(self, reranker: Reranker, limits: Limits | None = None) -> None:
        self._reranker = reranker
        self._limits = limits or Limits()
        self._changed = threading.Condition()
        self._calling = 0
        self._waiting = 0
        self._draining = False
        self._stats = ScorerStats()

    @property
    def card(self) -> ModelCard:
        return self._reranker.card

    def score(self, request: RerankRequest) -> RerankScores:
        """As `scored`, without deadline."""
        return self.scored(request).scores

    def scored(
        self,
        request: RerankRequest,
        deadline: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Scored:
        """See `Scoring`. A call under way is not interrupted."""
        submitted = time.perf_counter()
        self._enter(deadline, cancelled)
        began = time.perf_counter()
        try:
            scores = self._reranker.score(request)
        finally:
            with self._changed:
                self._calling -= 1
                self._changed.notify_all()
        elapsed = time.perf_counter() - began
        with self._changed:
            self._stats = replace(
                self._stats,
                batches=self._stats.batches + 1,
                rows=self._stats.rows + len(request.documents),
                tokens=self._stats.tokens + scores.tokens,
                tokens_per_second=scores.tokens / max(elapsed, 1e-9),
            )
        return Scored(scores, queue_ms=(began - submitted) * 1000)

    def _enter(self, deadline: float | None, cancelled: Callable[[], bool] | None) -> None:
        with self._changed:
            if self._draining:
                raise Overloaded(STOPPING)
            if self._calling >= self._limits.calls and self._waiting >= self._limits.requests:
                some = "1 request is" if self._waiting == 1 else f"{self._waiting:,} requests are"
                raise Overloaded(f"The reranker is busy: {some} waiting. Try again later.")
            self._waiting += 1
            try:
                while True:
                    reason = unwanted(deadline, cancelled)
                    if reason is not None:
                        raise reason
                    if self._calling < self._limits.calls:
                        break
                    self._changed.wait(_LOOK_SECONDS)
            finally:
                self._waiting -= 1
            self._calling += 1

    def stats(self) -> ScorerStats:
        with self._changed:
            return replace(self._stats, waiting_requests=self._waiting)

    def drain(self, timeout: float) -> bool:
        """See `Scoring`."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not self._calling and not self._waiting, timeout)
