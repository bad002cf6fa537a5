"""One thread owns the model and scores the rows of all waiting requests together. No torch.

Order. Rows are served in batches of at most the model's token budget. A batch begins with the
request whose arrival plus OVERTAKING times the seconds it still needs is earliest. So a short
request does not wait for a long one, requests of about the same size come in turn (whoever has
least left first would let the slightly longer wait for ever), and what was begun is ended. Of any
OLDEST_EVERY batches in a row one begins with the oldest request. Hence nobody starves: a request is
done after at most OLDEST_EVERY times the batches that it and those before it need, whatever arrives
later. Room left in a batch is filled with rows of the next requests in the same order.

Failure. A batch that fails is halved until the failing row stands alone; that row's request fails,
its batch mates are scored. A request that nobody waits for leaves between two batches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np

from rerank.cascade import CascadeReranker
from rerank.errors import DeviceError, Overloaded, RerankError
from rerank.inference.batching import TOO_LARGE
from rerank.inference.score_cache import ScoreCache, document_key, group_key
from rerank.inference.scoring import STOPPING, Limits, Scored, ScorerStats, Scoring, unwanted
from rerank.inference.whole_scorer import WholeScorer
from rerank.types import (
    BatchReranker,
    FloatArray,
    ModelCard,
    Prepared,
    Reranker,
    RerankRequest,
    RerankScores,
    Row,
)

logger = logging.getLogger(__name__)

# Who needs a second less may come so many seconds later and still go first.
OVERTAKING = 10.0
# Every so many batches the oldest request goes first, however long it is.
OLDEST_EVERY = 4
# A batch this full keeps a device busy; rows of other requests would only delay its own answer.
MERGED_TOKENS = 16_384
# What remains of the measured speed's past with each batch.
_KEPT = 0.8
# Who would need more than this share of the time left is refused: speeds vary, and who comes later
# may go first.
_TIME_SHARE = 0.8


@dataclass(eq=False)
class _Job:
    prepared: Prepared
    # Places still to be scored, the shortest first: batches take from the end.
    places: list[int]
    raw: FloatArray
    deadline: float | None
    cancelled: Callable[[], bool] | None
    submitted: float
    left: int = 0  # tokens of `places`
    inference_seconds: float = 0.0
    finished: float = 0.0
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Scorer:
    """The `Scoring` of a model whose rows can be batched. Threads call `scored`; one thread of its
    own runs the model."""

    def __init__(
        self,
        model: BatchReranker,
        limits: Limits | None = None,
        cache: ScoreCache | None = None,
    ) -> None:
        self._model = model
        self._limits = limits or Limits()
        self._cache = cache if model.card.revision else None
        self._waiting: list[_Job] = []  # the oldest first
        self._changed = threading.Condition()
        self._draining = False
        self._passed_over = 0  # batches since one began with the oldest request
        self._stats = ScorerStats()
        self._since = time.perf_counter()  # the end of the last batch, or of idleness
        self._paced_tokens = self._paced_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)
        self._thread.start()

    @property
    def card(self) -> ModelCard:
        return self._model.card

    def score(self, request: RerankRequest) -> RerankScores:
        """As `scored`, without deadline."""
        return self.scored(request).scores

    def scored(
        self,
        request: RerankRequest,
        deadline: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Scored:
        """See `Scoring`. Tokenising and the cache run in the calling thread."""
        self._refuse_when_full()
        prepared = self._model.prepare(request)
        keys = self._keys(prepared)
        raw, missing = self._known(keys, len(prepared.rows))
        job = _Job(
            prepared,
            sorted(missing, key=lambda place: prepared.lengths[place]),
            raw,
            deadline,
            cancelled,
            submitted=time.perf_counter(),
            left=sum(prepared.lengths[place] for place in missing),
        )
        tokens = job.left
        if missing:
            self._accept(job)
            job.done.wait()
            if job.error is not None:
                raise job.error
            self._keep(keys, raw, missing)
        else:
            job.finished = job.submitted
        scores = self._model.finish(prepared, raw)
        read = scores.tokens if len(missing) == len(raw) else tokens
        waited = job.finished - job.submitted - job.inference_seconds
        return Scored(
            replace(
                scores,
                tokens=read,
                tokenize_ms=prepared.tokenize_ms,
                inference_ms=job.inference_seconds * 1000,
            ),
            queue_ms=max(waited, 0.0) * 1000,
            cached=len(prepared.rows) - len(missing),
        )

    def stats(self) -> ScorerStats:
        with self._changed:
            return replace(
                self._stats,
                waiting_requests=len(self._waiting),
                waiting_rows=sum(len(job.places) for job in self._waiting),
                waiting_tokens=self._waiting_tokens(),
            )

    def drain(self, timeout: float) -> bool:
        """See `Scoring`. The thread ends; later requests raise Overloaded."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the calling threads -------------------------------------------------------------------

    def _keys(self, prepared: Prepared) -> tuple[bytes, list[bytes]] | None:
        if self._cache is None:
            return None
        group = group_key(self.card.revision, prepared.prompt)
        return group, [document_key(text) for text in prepared.request.documents]

    def _known(
        self, keys: tuple[bytes, list[bytes]] | None, count: int
    ) -> tuple[FloatArray, list[int]]:
        """Raw values with those of the cache in their places, and the places without one."""
        raw = np.zeros(count, dtype=np.float32)
        if self._cache is None or keys is None or not count:
            return raw, list(range(count))
        missing = []
        for place, value in enumerate(self._cache.get_many(*keys)):
            if value is None:
                missing.append(place)
            else:
                raw[place] = value
        return raw, missing

    def _keep(
        self, keys: tuple[bytes, list[bytes]] | None, raw: FloatArray, scored: Sequence[int]
    ) -> None:
        if self._cache is None or keys is None:
            return
        group, documents = keys
        values = {documents[place]: float(raw[place]) for place in scored}
        self._cache.put_many(group, {key: v for key, v in values.items() if np.isfinite(v)})

    def _refuse_when_full(self) -> None:
        """Before tokenising, which would be for nothing."""
        with self._changed:
            if self._draining:
                raise Overloaded(STOPPING)
            if len(self._waiting) >= self._limits.requests:
                raise self._overloaded()

    def _accept(self, job: _Job) -> None:
        with self._changed:
            if self._draining:
                raise Overloaded(STOPPING)
            full = self._waiting_tokens() + job.left > self._limits.tokens
            if len(self._waiting) >= self._limits.requests or (self._waiting and full):
                raise self._overloaded()
            if self._would_be_late(job):
                raise self._overloaded()
            self._waiting.append(job)
            self._changed.notify_all()

    def _would_be_late(self, job: _Job) -> bool:
        """Whether those that go first already take all the time there is."""
        speed = self._stats.tokens_per_second
        ahead = sum(other.left for other in self._waiting if other.left <= job.left)
        if job.deadline is None or not speed or not ahead:
            return False
        return (ahead + job.left) / speed > _TIME_SHARE * (job.deadline - time.time())

    def _overloaded(self) -> Overloaded:
        tokens, count = self._waiting_tokens(), len(self._waiting)
        waiting = "1 request is" if count == 1 else f"{count:,} requests are"
        return Overloaded(
            f"The reranker is busy: {waiting} waiting"
            f"{_about(tokens, self._stats.tokens_per_second)}. Try again later."
        )

    def _waiting_tokens(self) -> int:
        return sum(job.left for job in self._waiting)

    # --- the thread that owns the model --------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._draining:
                    self._changed.wait()
                    self._since = time.perf_counter()
                if not self._waiting:
                    return
                self._drop_unwanted()
            batch: list[tuple[_Job, int]] = []
            try:
                with self._changed:
                    batch = self._next_batch()
                self._serve(batch)
            except BaseException as error:  # whatever it was, the next request must find a scorer
                logger.exception("a batch of %d rows failed", len(batch))
                with self._changed:
                    for job in [job for job, _ in batch] or self._waiting:
                        self._fail(job, error)
            with self._changed:
                self._release_finished()

    def _drop_unwanted(self) -> None:
        for job in self._waiting:
            try:
                reason: BaseException | None = unwanted(job.deadline, job.cancelled)
            except Exception as error:
                reason = error
            if reason is not None:
                self._fail(job, reason)
        self._release_finished()

    def _next_batch(self) -> list[tuple[_Job, int]]:
        """Takes the places of the next batch off their jobs."""
        order = sorted(self._waiting, key=self._turn)  # equal ones: the oldest first
        batch: list[tuple[_Job, int]] = []
        if not order:
            return batch
        oldest = self._waiting[0]
        if self._passed_over >= OLDEST_EVERY - 1:
            order.remove(oldest)
            order.insert(0, oldest)
        self._passed_over = 0 if order[0] is oldest else self._passed_over + 1
        budget = self._model.budget
        longest = _take(order[0], batch, 0, budget)
        for job in order[1:]:
            longest = _take(job, batch, longest, min(budget, MERGED_TOKENS))
        return batch

    def _turn(self, job: _Job) -> float:
        speed = self._stats.tokens_per_second
        return job.submitted + OVERTAKING * job.left / speed if speed else job.left

    def _serve(self, batch: list[tuple[_Job, int]]) -> None:
        """Scores every row of the batch whose request does not fail."""
        waiting = [batch] if batch else []
        while waiting:
            part = [(job, place) for job, place in waiting.pop() if job.error is None]
            if not part:
                continue
            if len(part) > 1 and _cost(part) > self._model.budget:
                # Memory ran out meanwhile: trying it whole would lower the budget for nothing.
                waiting += _halves(part)
                continue
            rows: list[Row] = [(job.prepared, place) for job, place in part]
            began = time.perf_counter()
            try:
                values = self._model.run(rows)
                if len(values) != len(rows):
                    raise DeviceError(f"The model gave {len(values)} scores for {len(rows)} texts.")
            except Exception as error:
                self._account(part, time.perf_counter() - began)
                if len(part) == 1:
                    self._fail(part[0][0], self._named(error))
                else:
                    waiting += _halves(part)
                continue
            elapsed = time.perf_counter() - began
            for (job, place), value in zip(part, values, strict=True):
                job.raw[place] = value
            self._account(part, elapsed)
            self._measure(part)

    def _account(self, part: list[tuple[_Job, int]], elapsed: float) -> None:
        for job in {id(job): job for job, _ in part}.values():
            job.inference_seconds += elapsed

    def _measure(self, part: list[tuple[_Job, int]]) -> None:
        """The speed counts what passes between two batches too, but no idle time."""
        tokens = sum(job.prepared.lengths[place] for job, place in part)
        now = time.perf_counter()
        self._paced_tokens = _KEPT * self._paced_tokens + tokens
        self._paced_seconds = _KEPT * self._paced_seconds + now - self._since
        self._since = now
        with self._changed:
            before = self._stats
            self._stats = replace(
                before,
                batches=before.batches + 1,
                rows=before.rows + len(part),
                tokens=before.tokens + tokens,
                tokens_per_second=self._paced_tokens / max(self._paced_seconds, 1e-9),
            )

    def _named(self, error: Exception) -> BaseException:
        if isinstance(error, RerankError):
            return error
        if self._model.is_memory_error(error):
            named: RerankError = DeviceError(TOO_LARGE)
        else:
            logger.error("a row failed", exc_info=error)
            named = DeviceError(f"The reranker failed on one of the texts ({_short(error)}).")
        named.__cause__ = error
        return named

    def _fail(self, job: _Job, error: BaseException) -> None:
        job.error = job.error or error
        job.prepared.shared = None  # what the model kept for it may be large
        job.places.clear()
        job.left = 0

    def _release_finished(self) -> None:
        """Wakes whoever waits for a request that failed or has no row left."""
        for job in self._waiting:
            if not job.places:
                job.finished = time.perf_counter()
                job.done.set()
        self._waiting = [job for job in self._waiting if job.places]


def open_scorer(
    reranker: Reranker, limits: Limits | None = None, cache: ScoreCache | None = None
) -> Scoring:
    """One face for both kinds of rerankers. The models within a cascade get a scorer each, so that
    they too have one thread of their own and merge what waits."""
    if is_batched(reranker):
        return Scorer(reranker, limits, cache)
    if isinstance(reranker, CascadeReranker):
        reranker.wrap_stages(
            lambda stage: Scorer(stage, limits, cache) if is_batched(stage) else stage
        )
    return WholeScorer(reranker, limits)


def is_batched(reranker: Reranker) -> TypeGuard[BatchReranker]:
    return all(hasattr(reranker, name) for name in ("prepare", "run", "finish", "budget"))


def _cost(batch: list[tuple[_Job, int]]) -> int:
    """In tokens, padding included."""
    return len(batch) * max(job.prepared.lengths[place] for job, place in batch)


def _halves(batch: list[tuple[_Job, int]]) -> list[list[tuple[_Job, int]]]:
    """The first half last, from where it is taken next."""
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]]


def _take(job: _Job, batch: list[tuple[_Job, int]], longest: int, budget: int) -> int:
    """Moves places of the job into the batch, its longest first, while rows x the longest stay
    within the budget; the batch's longest row. The first row goes in whatever its length."""
    left_over: list[int] = []
    while job.places:
        if batch and (len(batch) + 1) * longest > budget:
            break
        place = job.places.pop()
        length = job.prepared.lengths[place]
        widest = max(longest, length)
        if batch and (len(batch) + 1) * widest > budget:
            left_over.append(place)
            continue
        batch.append((job, place))
        job.left -= length
        longest = widest
    job.places += left_over[::-1]
    return longest


def _about(tokens: int, speed: float) -> str:
    """The waiting work in words; "" while no batch has told the speed (tokens per second)."""
    if not speed or not tokens:
        return ""
    seconds = tokens / speed
    if seconds < 1.5:
        return ", about a second of work"
    if seconds < 90:
        return f", about {seconds:.0f} seconds of work"
    return f", about {seconds / 60:,.0f} minutes of work"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
