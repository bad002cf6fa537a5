"""What /metrics tells. Counters live in the web process, of which there is one; gauges are asked
for when somebody looks."""

from __future__ import annotations

from django.db import DatabaseError
from django.db.models import Count
from prometheus_client import Counter, Gauge, Histogram

from searchapp.engine import presence
from searchapp.engine.broker import BrokerDown, connection
from searchapp.models import PendingVector, Upload, UploadState
from searchapp.search.result import SearchResult

QUEUES = ("default", "embed", "gpu")

SEARCHES = Counter("podium_searches", "Searches by what became of the rerank", ["rerank_status"])
STAGE_SECONDS = Histogram(
    "podium_search_stage_seconds",
    "Duration of a search's stages",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
QUEUE_LENGTH = Gauge("podium_queue_length", "Messages waiting in a queue", ["queue"])
WORKERS = Gauge("podium_workers", "Workers that are ready", ["queue"])
PENDING_VECTORS = Gauge("podium_pending_vectors", "Passages that wait for their vector")
UPLOADS = Gauge("podium_uploads", "Uploads by state", ["state"])
BROKER_UP = Gauge("podium_broker_up", "1 when the broker answers")
DATABASE_UP = Gauge("podium_database_up", "1 when the database answers")


def observe_search(result: SearchResult) -> None:
    """Counts one finished search (its rerank is no longer pending) with its stage times."""
    SEARCHES.labels(result.rerank.status).inc()
    for stage, milliseconds in result.timings_ms.items():
        STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)


def refresh_gauges() -> None:
    """Never raises: a server that is down is a gauge at 0."""
    try:
        for queue in QUEUES:
            QUEUE_LENGTH.labels(queue).set(connection().llen(queue))
            WORKERS.labels(queue).set(len(presence.alive(queue)))
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
