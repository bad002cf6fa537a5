"""Searches kept: recorded with their first stage, completed when the rerank arrives."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from searchapp.engine.sockets import RerankOutcome, RerankSocket
from searchapp.models import SearchConfig, Trace
from searchapp.models.corpus import AnyUser

from . import pipeline
from .result import SearchResult

# While one request waits for the answer, which can be read once; others watch the row.
COLLECTING = "collecting"
WATCH_SECONDS = 0.1
CANCELLED = "The page was left before the reranked order came."
# Old traces go in transactions of this many.
FORGET_AT_ONCE = 500


def record(result: SearchResult, user: AnyUser, instruction: str | None = None) -> Trace:
    """Stores the search; its config is frozen from now on. `instruction`: the override, if any."""
    frozen = SearchConfig.objects.filter(pk=result.config_id, frozen_at=None)
    frozen.update(frozen_at=timezone.now())
    return Trace.objects.create(
        collection_id=result.collection_id,
        user_id=user.pk if user is not None and user.is_authenticated else None,
        config_id=result.config_id,
        query=result.query,
        instruction=instruction,
        filters=dict(result.filters),
        result=result.as_json(),
        rerank_status=result.rerank.status,
    )


def load(uid: UUID | str, user: AnyUser) -> Trace:
    """Raises Trace.DoesNotExist, also for a trace of somebody else."""
    visible = Trace.objects.visible_to(user).select_related("collection", "config")
    found: Trace = visible.get(uid=uid)
    return found


def collect(trace: Trace, reranker: RerankSocket, deadline: float | None = None) -> SearchResult:
    """The result with its rerank, waiting until the deadline (the search's own) at most.

    Several requests may wait for one search: the first reads the answer, the others its row.
    """
    deadline = deadline or trace.created_at.timestamp() + settings.RERANK_DEADLINE_MS / 1000
    claimed = Trace.objects.filter(pk=trace.pk, rerank_status="pending")
    if claimed.update(rerank_status=COLLECTING):
        ticket = SearchResult.from_json(trace.result).ticket
        return complete(trace, reranker.collect(ticket, deadline))
    while time.time() < deadline + 1 and _status(trace) == COLLECTING:
        time.sleep(WATCH_SECONDS)
    return complete(trace, RerankOutcome("late", "The reranker's answer was lost on its way."))


def cancel(trace: Trace, reranker: RerankSocket) -> SearchResult | None:
    """Nobody waits for the rerank any more: whoever reads the search later finds it in first-stage
    order. None when there was nothing to end, or another request is about to."""
    ticket, status = SearchResult.from_json(trace.result).ticket, _status(trace)
    if not ticket or status not in {"pending", COLLECTING}:
        return None
    reranker.cancel(ticket)
    ended = complete(trace, RerankOutcome("unavailable", CANCELLED, code="cancelled"))
    return ended if status == "pending" else None


def complete(trace: Trace, outcome: RerankOutcome) -> SearchResult:
    """Finishes the stored search with the outcome, once: later calls return what is stored."""
    with transaction.atomic():
        stored = Trace.objects.select_for_update().get(pk=trace.pk)
        result = SearchResult.from_json(stored.result)
        if stored.rerank_status in {"pending", COLLECTING}:
            waited_ms = 1000 * (time.time() - stored.created_at.timestamp())
            result = pipeline.finish(result, outcome, rerank_ms=waited_ms)
            stored.result = result.as_json()
            stored.rerank_status = result.rerank.status
            stored.save(update_fields=["result", "rerank_status"])
    trace.result, trace.rerank_status = stored.result, stored.rerank_status
    return result


def forget_old() -> int:
    """Deletes searches older than TRACE_DAYS (0 keeps all for ever); how many."""
    if not settings.TRACE_DAYS:
        return 0
    old = Trace.objects.filter(created_at__lt=timezone.now() - timedelta(days=settings.TRACE_DAYS))
    deleted = 0
    while ids := list(old.order_by("id").values_list("id", flat=True)[:FORGET_AT_ONCE]):
        deleted += Trace.objects.filter(id__in=ids).delete()[0]
    return deleted


def _status(trace: Trace) -> Any:
    return Trace.objects.values_list("rerank_status", flat=True).get(pk=trace.pk)
