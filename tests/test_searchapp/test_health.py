"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from prometheus_client import REGISTRY

from searchapp import metrics
from searchapp.engine.presence import Heartbeat, alive
from searchapp.engine.sockets import RerankOutcome
from searchapp.search.result import SearchResult


@pytest.fixture
def rerank_worker() -> Iterator[None]:
    heartbeat = Heartbeat(["gpu"], "a model", "CPU")
    heartbeat._beat()
    yield
    heartbeat.stop()


def test_the_process_lives_whatever_else_is_down(client: Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["name"]) == (200, "podium")


@pytest.mark.django_db
def test_readiness_names_the_missing_rerank_worker(client: Client) -> None:
    assert not alive("gpu")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == [
        "No rerank worker is ready. Results stay in first-stage order."
    ]


@pytest.mark.django_db
def test_readiness_needs_database_broker_and_a_rerank_worker(
    client: Client, rerank_worker: None
) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.json()
    assert answer.json()["checks"]["rerank_worker"]["detail"] == "ready with a model on CPU"
    assert not answer.json()["checks"]["embed_worker"]["ok"]


@pytest.mark.django_db
def test_readiness_names_the_check_that_a_model_failed(client: Client) -> None:
    reason = "The reranker x failed a check and does not serve: some scores are no numbers."
    heartbeat = Heartbeat(["gpu"], reason=reason)
    heartbeat._beat()
    try:
        answer = client.get("/readyz")
    finally:
        heartbeat.stop()
    assert answer.status_code == 503
    assert answer.json()["missing"] == [f"{reason} Results stay in first-stage order."]


def test_metrics_tell_where_a_reranks_time_went_and_why_there_was_none() -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = value("podium_rerank_seconds_sum", part="tokenize")
    cached = value("podium_rerank_cached_pairs_total")
    busy = value("podium_rerank_failures_total", code="overloaded")
    done = RerankOutcome("ok", pairs=50, truncated=2, tokenize_ms=4, inference_ms=90, cached=7)
    metrics.observe_rerank(done)
    metrics.observe_rerank(RerankOutcome("unavailable", "Busy.", code="overloaded"))
    metrics.observe_rerank(RerankOutcome("off"))
    assert value("podium_rerank_seconds_sum", part="tokenize") == pytest.approx(before + 0.004)
    assert value("podium_rerank_cached_pairs_total") == cached + 7
    assert value("podium_rerank_failures_total", code="overloaded") == busy + 1


@pytest.mark.django_db
def test_metrics_hold_the_figures_of_each_rerank_worker(client: Client) -> None:
    heartbeat = Heartbeat(["gpu"], "a model", "CPU", figures=lambda: {"waiting_rows": 12.0})
    heartbeat._beat()
    shown = client.get("/metrics", REMOTE_ADDR="127.0.0.1").content.decode()
    heartbeat.stop()
    assert 'podium_rerank_worker{figure="waiting_rows",worker=' in shown and "} 12.0" in shown
    shown = client.get("/metrics", REMOTE_ADDR="127.0.0.1").content.decode()
    assert 'figure="waiting_rows"' not in shown


def test_readiness_says_when_servers_are_gone(client: Client, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    settings.DATABASES["default"]["PORT"], port = "1", settings.DATABASES["default"]["PORT"]
    try:
        answer = client.get("/readyz")
    finally:
        settings.DATABASES["default"]["PORT"] = port
    assert answer.status_code == 503
    assert "The database does not answer." in answer.json()["missing"]
    assert "The broker does not answer." in answer.json()["missing"]


@pytest.mark.django_db
def test_metrics_count_searches_and_show_the_queues(client: Client, rerank_worker: None) -> None:
    before = metrics.SEARCHES.labels("late")._value.get()
    metrics.observe_search(
        SearchResult(
            query="q",
            collection_id=1,
            config_id=1,
            config_version=1,
            instruction="",
            hits=(),
            legs={},
            rerank=RerankOutcome(status="late"),
            timings_ms={"first_stage": 12.0},
        )
    )
    text = client.get("/metrics").content.decode()
    assert f'podium_searches_total{{rerank_status="late"}} {before + 1}' in text
    assert 'podium_workers{queue="gpu"} 1.0' in text
    assert 'podium_queue_length{queue="default"}' in text
    assert "podium_pending_vectors 0.0" in text


@pytest.mark.django_db
def test_a_state_that_no_upload_is_in_any_more_counts_zero(client: Client) -> None:
    metrics.UPLOADS.labels("parsing").set(3)
    assert 'podium_uploads{state="parsing"} 0.0' in client.get("/metrics").content.decode()


@pytest.mark.django_db
def test_metrics_are_for_this_machine_the_token_and_superusers(
    client: Client, settings: Any
) -> None:
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={"X-Forwarded-For": "8.8.8.8"}).status_code == 403
    assert client.get("/metrics", REMOTE_ADDR="8.8.8.8").status_code == 403
    settings.METRICS_TOKEN = "a token"
    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer a token"}).status_code == 200
    client.force_login(get_user_model().objects.create_superuser("root", password="x"))
    assert client.get("/metrics", REMOTE_ADDR="8.8.8.8").status_code == 200
