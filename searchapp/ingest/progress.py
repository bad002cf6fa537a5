"""How far a batch is: counts, rate and time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Count, Q, Sum

from searchapp.engine import broker
from searchapp.models import (
    Document,
    DocumentStatus,
    PendingVector,
    Upload,
    UploadBatch,
    UploadState,
)
from searchapp.models.uploads import OPEN_STATES

logger = logging.getLogger(__name__)

# The rate is what happened within the window, measured from at least so long ago.
WINDOW_SECONDS = 30.0
_SHORTEST_SECONDS = 2.0
_KEPT_SAMPLES = 120
# Counting the waiting vectors one by one is cheap up to so many unfinished documents.
_COUNTED_DOCUMENTS = 500


@dataclass(frozen=True)
class BatchProgress:
    """Counts of one batch. `states` has every UploadState as a key.

    `passages` are searchable by words; `vectors_pending` of them wait to be searchable by meaning.
    `passages_per_second` and `seconds_left` are None while they are not known.
    """

    states: Mapping[str, int]
    documents: int
    passages: int
    vectors_pending: int
    passages_per_second: float | None
    seconds_left: float | None
    is_paused: bool
    retryable: int

    @property
    def files(self) -> int:
        return sum(self.states.values())

    @property
    def files_open(self) -> int:
        return sum(self.states[state] for state in OPEN_STATES)

    @property
    def files_finished(self) -> int:
        return self.files - self.files_open

    @property
    def is_finished(self) -> bool:
        return self.files_open == 0

    def as_json(self) -> dict[str, Any]:
        derived = {
            "files": self.files,
            "files_finished": self.files_finished,
            "is_finished": self.is_finished,
        }
        return {**asdict(self), "states": dict(self.states), **derived}


def batch_progress(batch: UploadBatch, clock: Callable[[], float] = time.time) -> BatchProgress:
    """The batch as it is now. Each call also leaves a sample for the rate of later calls."""
    totals = _totals(batch)
    states = {str(state): int(totals[state]) for state in UploadState.values}
    pending = _vectors_pending(batch)
    passages = int(totals["passages"])
    done = max(0, passages - pending)
    rate = _rate(batch.pk, done, clock()) if any(states[s] for s in OPEN_STATES) else None
    paused = bool(UploadBatch.objects.values_list("paused", flat=True).get(pk=batch.pk))
    return BatchProgress(
        states=states,
        documents=int(totals["documents"]),
        passages=passages,
        vectors_pending=pending,
        passages_per_second=rate,
        seconds_left=_seconds_left(totals, passages, pending, rate),
        is_paused=paused,
        retryable=int(totals["retryable"]),
    )


def _totals(batch: UploadBatch) -> dict[str, Any]:
    counts: dict[str, Any] = {
        state: Count("id", filter=Q(state=state)) for state in UploadState.values
    }
    unread = Q(state__in=[UploadState.RECEIVED, UploadState.PARSING])
    found: dict[str, Any] = Upload.objects.filter(batch=batch).aggregate(
        **counts,
        documents=Sum("documents_done", default=0),
        passages=Sum("passages_done", default=0),
        retryable=Count("id", filter=Q(state=UploadState.FAILED, retryable=True)),
        unread_bytes=Sum("size_bytes", filter=unread, default=0),
        # Only what became text tells how many passages a byte gives.
        read_bytes=Sum(
            "size_bytes",
            filter=Q(state__in=[UploadState.INDEXING, UploadState.READY], passages_done__gt=0),
            default=0,
        ),
        read_passages=Sum(
            "passages_done",
            filter=Q(state__in=[UploadState.INDEXING, UploadState.READY]),
            default=0,
        ),
    )
    return found


def _vectors_pending(batch: UploadBatch) -> int:
    """Exact for few unfinished documents; for many, all their passages count as waiting."""
    waiting = Document.objects.filter(upload__batch=batch, status=DocumentStatus.INDEXING)
    totals = waiting.aggregate(documents=Count("id"), passages=Sum("passage_count", default=0))
    if totals["documents"] > _COUNTED_DOCUMENTS:
        return int(totals["passages"])
    if not totals["documents"]:
        return 0
    return PendingVector.objects.filter(
        passage__document__upload__batch=batch,
        passage__document__status=DocumentStatus.INDEXING,
    ).count()


def _seconds_left(
    totals: Mapping[str, Any], passages: int, pending: int, rate: float | None
) -> float | None:
    """Waiting vectors plus the passages that the unread files will give, at the present rate."""
    if not rate:
        return None
    expected = 0.0
    if totals["unread_bytes"]:
        if not totals["read_bytes"]:
            return None
        whole = totals["read_passages"] / totals["read_bytes"] * totals["unread_bytes"]
        begun = passages - totals["read_passages"]
        expected = max(0.0, whole - begun)
    return (pending + expected) / rate


def _rate(batch_id: int, done: int, now: float) -> float | None:
    """Passages per second over the window, from the samples earlier calls left in Redis."""
    key = f"podium:progress:{batch_id}"
    try:
        pipe = broker.connection().pipeline()
        pipe.lrange(key, 0, _KEPT_SAMPLES)
        pipe.lpush(key, f"{now:.3f} {done}")
        pipe.ltrim(key, 0, _KEPT_SAMPLES)
        pipe.expire(key, int(4 * WINDOW_SECONDS))
        samples = pipe.execute()[0]
    except broker.BrokerDown as error:
        logger.warning("no rate for batch %s: %s", batch_id, error)
        return None
    within = []
    for sample in samples:
        at, count = sample.split(" ")
        if now - float(at) <= WINDOW_SECONDS:
            within.append((float(at), int(count)))
    if not within:
        return None
    oldest, count = min(within)
    if now - oldest < _SHORTEST_SECONDS or done <= count:
        return None
    return (done - count) / (now - oldest)
