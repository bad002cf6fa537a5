"""What /metrics tells. Counters live in the web process, of which there is one; gauges are asked
for when somebody looks."""

from __future__ import annotations

from django.db import DatabaseError
from django.db.models import Count
from prometheus_client import Counter, Gauge, Histogram

from searchapp.engine import presence
from searchapp.engine.broker import BrokerDown, connection
from searchapp.engine.sockets import RerankOutcome
from searchapp.models import PendingVector, Upload, UploadState
from searchapp.search.result import SearchResult

QUEUES = ("default", "embed", "gpu", "training")

SEARCHES = Counter("podium_searches", "Searches by what became of the rerank", ["rerank_status"])
STAGE_SECONDS = Histogram(
    "podium_search_stage_seconds",
    "Duration of a search's stages",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RERANK_SECONDS = Histogram(
    "podium_rerank_seconds",
    "Where the time of a rerank went: tokenize, queue (all waiting), inference",
    ["part"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RERANK_PAIRS = Histogram(
    "podium_rerank_pairs",
    "Pairs of a rerank",
    buckets=(1, 5, 10, 20, 50, 100, 200, 500, 1000),
)
CACHED_PAIRS = Counter("podium_rerank_cached_pairs", "Pairs whose score was known from before")
TRUNCATED = Counter("podium_rerank_truncated_documents", "Documents that were cut to fit")
FAILURES = Counter(
    "podium_rerank_failures",
    "Reranks without an answer by why: overloaded, late, cancelled, no-worker, ...",
    ["code"],
)
WORKER_FIGURES = Gauge(
    "podium_rerank_worker",
    "Of each rerank worker: waiting_requests, waiting_rows, tokens_per_second, ...",
    ["worker", "figure"],
)
QUEUE_LENGTH = Gauge("podium_queue_length", "Messages waiting in a queue", ["queue"])
WORKERS = Gauge("podium_workers", "Workers that are ready", ["queue"])
API_CALLS = Counter("podium_api_calls", "Calls of the API by their end", ["family", "status"])
API_REFUSALS = Counter("podium_api_refusals", "Calls of the API not served, by why", ["code"])
PENDING_VECTORS = Gauge("podium_pending_vectors", "Passages that wait for their vector")
UPLOADS = Gauge("podium_uploads", "Uploads by state", ["state"])
BROKER_UP = Gauge("podium_broker_up", "1 when the broker answers")
DATABASE_UP = Gauge("podium_database_up", "1 when the database answers")


def observe_search(result: SearchResult) -> None:
    """Counts one finished search (its rerank is no longer pending) with its stage times."""
    SEARCHES.labels(result.rerank.status).inc()
    for stage, milliseconds in result.timings_ms.items():
        STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)
    observe_rerank(result.rerank)


def observe_rerank(outcome: RerankOutcome) -> None:
    """Counts one rerank that is over, however it ended."""
    if outcome.status == "ok":
        RERANK_SECONDS.labels("tokenize").observe(outcome.tokenize_ms / 1000)
        RERANK_SECONDS.labels("queue").observe(outcome.queue_ms / 1000)
        RERANK_SECONDS.labels("inference").observe(outcome.inference_ms / 1000)
        RERANK_PAIRS.observe(outcome.pairs)
        CACHED_PAIRS.inc(outcome.cached)
        TRUNCATED.inc(outcome.truncated)
    elif outcome.status in {"late", "unavailable"}:
        FAILURES.labels(outcome.code or outcome.status).inc()


def refresh_gauges() -> None:
    """Never raises: a server that is down is a gauge at 0."""
    try:
        for queue in QUEUES:
            QUEUE_LENGTH.labels(queue).set(connection().llen(queue))
            WORKERS.labels(queue).set(len(presence.alive(queue)))
        _worker_figures()
        BROKER_UP.set(1)
    except BrokerDown:
        BROKER_UP.set(0)
    try:
        PENDING_VECTORS.set(PendingVector.objects.count())
        by_state = Upload.objects.order_by().values_list("state").annotate(uploads=Count("pk"))
        counts = dict(by_state)
        # Every state: one that the last upload has left would keep its old number.
        for state in UploadState.values:
            UPLOADS.labels(state).set(counts.get(state, 0))
        DATABASE_UP.set(1)
    except DatabaseError:
        DATABASE_UP.set(0)


def _worker_figures() -> None:
    # Without those of workers that have gone.
    WORKER_FIGURES.clear()
    for worker in presence.at_work("gpu"):
        for figure, value in worker.figures.items():
            WORKER_FIGURES.labels(f"{worker.host}:{worker.pid}", figure).set(value)
