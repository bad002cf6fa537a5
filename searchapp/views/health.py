"""For machines: is the process alive, can it serve, what does it do."""

from __future__ import annotations

import hmac
from typing import Any

import psycopg
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from searchapp import metrics
from searchapp.engine import presence
from searchapp.engine.broker import BrokerDown, connection

Check = dict[str, Any]

_DATABASE_SECONDS = 3


@require_safe
@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """The process lives. Nothing else is asked, so that nothing else gets it restarted."""
    return JsonResponse({"name": "podium", "status": "ok"})


@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """503 with what is missing until database, broker and a rerank worker answer.

    The other workers are reported, but a search works without them.
    """
    checks = {
        "database": _database(),
        "broker": _broker(),
        "rerank_worker": _worker("gpu", "rerank worker", "Results stay in first-stage order"),
        "embed_worker": _worker("embed", "embed worker", "Searches go by words only"),
        "default_worker": _worker("default", "default worker", "Uploads wait"),
        "training_worker": _worker("training", "training worker", "Trainings wait"),
    }
    required = ("database", "broker", "rerank_worker")
    missing = [checks[name]["detail"] for name in required if not checks[name]["ok"]]
    response = JsonResponse(
        {"ready": not missing, "missing": missing, "checks": checks},
        status=503 if missing else 200,
    )
    # Django would log each 503 as an error; whoever asks gets it told.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


@require_safe
@never_cache
def metrics_page(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format; for METRICS_TOKEN's holder, superusers, and this machine itself."""
    if not _may_read_metrics(request):
        return HttpResponseForbidden(
            "Metrics need the token of METRICS_TOKEN as a bearer, or a superuser's session.\n",
            content_type="text/plain",
        )
    metrics.refresh_gauges()
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics(request: HttpRequest) -> bool:
    if settings.METRICS_TOKEN:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        may = hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode())
    else:
        # A proxy on this machine speaks for others and says so.
        forwarded = {"X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"} & set(request.headers)
        may = request.META.get("REMOTE_ADDR") in {"127.0.0.1", "::1"} and not forwarded
    return may or bool(request.user.is_active and getattr(request.user, "is_superuser", False))


def _database() -> Check:
    """By a connection of its own: the pool's wait would say less, later."""
    database = settings.DATABASES["default"]
    try:
        with psycopg.connect(
            host=database["HOST"],
            port=database["PORT"] or None,
            user=database["USER"],
            password=database["PASSWORD"],
            dbname=database["NAME"],
            connect_timeout=_DATABASE_SECONDS,
            **{k: v for k, v in database["OPTIONS"].items() if k.startswith("ssl")},
        ) as probe:
            probe.execute("SELECT 1")
    except psycopg.Error:
        return {"name": "database", "ok": False, "detail": "The database does not answer."}
    return {"name": "database", "ok": True, "detail": "answers"}


def _broker() -> Check:
    try:
        connection().ping()
    except BrokerDown:
        return {"name": "broker", "ok": False, "detail": "The broker does not answer."}
    return {"name": "broker", "ok": True, "detail": "answers"}


def _worker(queue: str, name: str, otherwise: str) -> Check:
    try:
        workers = presence.alive(queue)
    except BrokerDown:
        workers = []
    if not workers:
        return {"name": name, "ok": False, "detail": f"No {name} is ready. {otherwise}."}
    # One that could not load its model, or whose model failed a check, serves nobody.
    able = [worker for worker in workers if not worker.reason]
    if not able:
        reason = workers[0].reason
        return {"name": name, "ok": False, "detail": f"{reason} {otherwise}.", "refused": True}
    first = able[0]
    with_model = f" with {first.model} on {first.device}" if first.model else ""
    return {"name": name, "ok": True, "detail": f"ready{with_model}", "count": len(able)}
