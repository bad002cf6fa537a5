"""The calibration of a collection: its judged queries, the fit, and what the fit is worth."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe
from kombu.exceptions import OperationalError

from searchapp.engine import presence
from searchapp.models import Calibration, CalibrationState, Judgment, Role
from searchapp.models.judgments import MINIMUM_JUDGED_QUERIES
from searchapp.search import calibration_charts
from searchapp.tasks import calibrate
from searchapp.workbench import calibrating, judging

from .access import Access, opened

PAGE_SIZE = 50


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def calibration(request: HttpRequest, slug: str) -> HttpResponse:
    """GET: the page. POST: `forget` with a judged query's key, or action "calibrate"."""
    access = opened(request, slug, Role.EDITOR)
    if request.method != "POST":
        summaries = Paginator(judging.query_summaries(access.collection), PAGE_SIZE)
        context = {
            **_status(access),
            "access": access,
            "tab": "calibration",
            "page": summaries.get_page(request.GET.get("page")),
        }
        return render(request, "calibration/calibration.html", context)
    if "forget" in request.POST:
        count = judging.forget_query(access.collection, request.POST["forget"][:32])
        messages.success(request, f"{count} judgment{'' if count == 1 else 's'} deleted.")
    elif request.POST.get("action") == "calibrate":
        if problem := _start(request, access):
            messages.error(request, problem)
    else:
        raise PermissionDenied("no such action")
    return redirect("collection_calibration", slug)


@require_safe
@never_cache
def calibration_status(request: HttpRequest, slug: str) -> HttpResponse:
    """The upper part of the page as a fragment, while a calibration runs."""
    access = opened(request, slug, Role.EDITOR)
    return render(request, "calibration/_status.html", _status(access))


def _start(request: HttpRequest, access: Access) -> str:
    """Queues a calibration. Returns why not, or ""."""
    if not presence.is_served("gpu"):
        return "No rerank worker is running, so nothing can be calibrated now."
    unjudged = request.POST.get("unjudged") == "irrelevant"
    row = calibrating.request_calibration(access.collection, request.user, unjudged_count=unjudged)
    if isinstance(row, str):
        return row
    try:
        calibrate.apply_async([row.pk], retry=False)
    except OperationalError:
        calibrating.fail(row, "The message broker (Redis) cannot be reached.")
        return row.message
    return ""


def _status(access: Access) -> dict[str, Any]:
    collection = access.collection
    rows = Calibration.objects.filter(collection=collection).select_related("config", "created_by")
    ready = rows.filter(state=CalibrationState.READY)
    reranker = collection.active_config.model if collection.active_config else ""
    # A calibration is one reranker's: that of the one in use says what searches show.
    serving = ready.filter(config__model=reranker).first() or ready.first()
    latest = rows.first()
    running = rows.under_way().first()
    judgments = Judgment.objects.filter(collection=collection)
    queries = judgments.query_count()
    report = serving.report if serving else {}
    sure = report.get("confidence")
    return {
        "collection": collection,
        "serving": serving,
        "running": running,
        "failed": latest if latest and latest.state == CalibrationState.FAILED else None,
        "lost": latest if latest and running is None and _is_open(latest) else None,
        "report": report,
        "example": _example(report),
        "needed": MINIMUM_JUDGED_QUERIES,
        "query_count": queries,
        "judgment_count": judgments.count(),
        "is_enough": queries >= MINIMUM_JUDGED_QUERIES,
        "is_older": serving is not None and serving.config_id != collection.active_config_id,
        "is_other": serving is not None and serving.config.model != reranker,
        "reliability": calibration_charts.reliability(report) if report else None,
        "risk": calibration_charts.risk_coverage(sure) if sure else None,
        "sure": sure,
    }


def _example(report: dict[str, Any]) -> int:
    """Tenths that hits of this collection really reach, to explain the numbers by."""
    if not report:
        return 7
    highest = float(report["after"]["bins"][-1]["predicted"])
    return min(max(round(10 * highest), 1), 9)


def _is_open(row: Calibration) -> bool:
    return row.state in {CalibrationState.QUEUED, CalibrationState.RUNNING}
