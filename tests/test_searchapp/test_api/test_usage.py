"""What keys asked for adds up, whoever counts at the same time; and no log holds a key."""

from __future__ import annotations

import io
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.views.debug import get_exception_reporter_filter
from prometheus_client import REGISTRY

from searchapp.api import usage
from searchapp.api.auth import Caller, keyed, refused
from searchapp.api.limits import Cost, charge
from searchapp.api.redacting import LineWithoutKeys
from searchapp.api.refusals import Refusal
from searchapp.api.usage import Meter
from searchapp.celery import app as celery_app
from searchapp.engine import broker
from searchapp.models import ApiKey, ApiUsage, Family, Scope
from searchapp.tasks import forget_old_usage
from tests.callers import bearer, make_key


def render(refusal: Refusal) -> HttpResponse:
    return JsonResponse({"detail": refusal.sentence}, status=refusal.status)


@keyed(Scope.SEARCH, Family.RERANK, render)
def _rerank(request: HttpRequest, caller: Caller) -> HttpResponse:
    granted = charge(caller, Cost(bytes=1000, pairs=10), "fast")
    if isinstance(granted, Refusal):
        return refused(granted, render)
    caller.meter.tokens += 250
    return JsonResponse({})


def rerank(request: HttpRequest) -> HttpResponse:
    """As a server calls it, which closes what it has sent."""
    response = _rerank(request)
    response.close()
    return response


@keyed(Scope.SEARCH, Family.EMBED, render)
def broken(request: HttpRequest, caller: Caller) -> HttpResponse:
    raise RuntimeError("no model")


@pytest.fixture
def key(transactional_db: None) -> tuple[ApiKey, str]:
    made = make_key(User.objects.create_user("olive"))
    broker.connection().delete(f"podium:limits:{made[0].pk}")
    return made


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_calls_from_many_threads_add_up(key: tuple[ApiKey, str], settings: object) -> None:
    """32 threads, 300 calls, of which the limit lets 200 through."""
    settings.API_FAST_PAIRS_PER_MINUTE = 2000  # type: ignore[attr-defined]
    row, plain = key
    served, refused = (
        metric("podium_api_calls_total", family="rerank", status="200"),
        metric("podium_api_refusals_total", code="rate-limited"),
    )

    def call(_: int) -> int:
        try:
            return rerank(RequestFactory().post("/", **bearer(plain))).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(call, range(300)))
    good = statuses.count(200)
    assert 200 <= good <= 230
    assert statuses.count(429) == 300 - good
    totals = ApiUsage.objects.filter(key=row).totals()
    assert totals == {
        "calls": 300,
        "refused": 300 - good,
        "pairs": 10 * good,
        "bytes": 1000 * good,
        "tokens": 250 * good,
    }
    assert set(ApiUsage.objects.values_list("family", flat=True)) == {"rerank"}
    assert metric("podium_api_calls_total", family="rerank", status="200") - served == good
    counted = metric("podium_api_refusals_total", code="rate-limited") - refused
    assert counted == 300 - good


def test_hours_and_families_are_counted_apart(
    key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 3, 1, 9, 59, 59, 900_000, tzinfo=UTC)
    times = iter([at, at + timedelta(seconds=1), at + timedelta(seconds=2)])
    monkeypatch.setattr(timezone, "now", lambda: next(times))
    for family in (Family.RERANK, Family.RERANK, Family.SEARCH):
        usage.record(key[0], family, Meter(pairs=1), refused=False)
    rows = ApiUsage.objects.order_by("hour", "family").values_list("hour", "family", "calls")
    assert list(rows) == [
        (at.replace(minute=0, second=0, microsecond=0), "rerank", 1),
        (datetime(2026, 3, 1, 10, tzinfo=UTC), "rerank", 1),
        (datetime(2026, 3, 1, 10, tzinfo=UTC), "search", 1),
    ]


def test_counts_are_forgotten_after_their_days_and_never_where_the_days_are_none(
    key: tuple[ApiKey, str], settings: Any
) -> None:
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    for days in (0, 399, 401, 900):
        hour = now - timedelta(days=days)
        ApiUsage.objects.create(key=key[0], hour=hour, family=Family.SEARCH, calls=days)
    settings.API_USAGE_DAYS = 0
    assert forget_old_usage() == 0
    settings.API_USAGE_DAYS = 400
    assert forget_old_usage() == 2
    assert sorted(ApiUsage.objects.values_list("calls", flat=True)) == [0, 399]
    assert forget_old_usage() == 0


def test_the_clock_of_the_default_worker_forgets_old_counts() -> None:
    (entry,) = [
        each
        for each in celery_app.conf.beat_schedule.values()
        if each["task"] == forget_old_usage.name
    ]
    assert entry["options"]["queue"] == "default"


def test_the_last_use_is_written_at_most_once_a_minute(key: tuple[ApiKey, str]) -> None:
    row, plain = key
    seen = set()
    for _ in range(3):
        rerank(RequestFactory().post("/", **bearer(plain)))
        seen.add(ApiKey.objects.get(pk=row.pk).last_used_at)
    assert len(seen) == 1
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    rerank(RequestFactory().post("/", **bearer(plain)))
    assert ApiKey.objects.get(pk=row.pk).last_used_at > max(seen)


def test_a_call_that_fails_is_counted_too(key: tuple[ApiKey, str]) -> None:
    with pytest.raises(RuntimeError):
        broken(RequestFactory().post("/", **bearer(key[1])))
    assert ApiUsage.objects.get().calls == 1


def test_a_key_deleted_while_it_calls_harms_nobody(key: tuple[ApiKey, str]) -> None:
    row = key[0]
    ApiKey.objects.all().delete()
    usage.record(ApiKey(pk=row.pk or 1, owner_id=1), Family.RERANK, Meter(), refused=False)
    assert not ApiUsage.objects.exists()


def test_calls_that_end_while_others_go_on_are_written_with_them(
    key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "TOGETHER_SECONDS", 60.0)
    meters = [Meter(pairs=1) for _ in range(3)]
    for meter in meters:
        usage.begin(meter)
    for meter in meters[:2]:
        usage.record(key[0], Family.RERANK, meter, refused=False)
    assert not ApiUsage.objects.exists()
    with CaptureQueriesContext(connection) as queries:
        usage.record(key[0], Family.SEARCH, meters[2], refused=True)
    assert sum("INSERT INTO searchapp_apiusage" in each["sql"] for each in queries) == 1
    rows = ApiUsage.objects.order_by("family").values_list("family", "calls", "refused", "pairs")
    assert list(rows) == [("rerank", 2, 0, 2), ("search", 1, 1, 1)]


def test_a_long_call_holds_up_no_count_for_long(
    key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "TOGETHER_SECONDS", 0.05)
    usage.begin(long := Meter())
    usage.record(key[0], Family.RERANK, Meter(), refused=False)
    time.sleep(0.06)
    usage.record(key[0], Family.RERANK, Meter(), refused=False)
    assert ApiUsage.objects.get().calls == 2
    usage.record(key[0], Family.RERANK, long, refused=False)
    assert ApiUsage.objects.get().calls == 3


def test_a_call_that_was_never_ended_holds_up_nobody(key: tuple[ApiKey, str]) -> None:
    usage.begin(Meter())
    usage.record(key[0], Family.RERANK, Meter(), refused=False)
    assert ApiUsage.objects.get().calls == 1


@pytest.mark.parametrize("statement", ['FROM "searchapp_apikey"', "INSERT INTO searchapp_apiusage"])
def test_a_database_that_fails_is_told_in_the_dialects_shape(
    key: tuple[ApiKey, str], statement: str
) -> None:
    """Before the call: try again. After it, the answer is worth more than a count."""

    def fail(execute: Any, sql: str, *arguments: Any) -> Any:
        if statement in sql:
            raise OperationalError("the server closed the connection")
        return execute(sql, *arguments)

    with connection.execute_wrapper(fail):
        response = rerank(RequestFactory().post("/", **bearer(key[1])))
    if "INSERT" in statement:
        assert response.status_code == 200
        assert not ApiUsage.objects.exists()
    else:
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "Try again" in json.loads(response.content)["detail"]


def test_no_call_says_its_key_to_a_log(
    key: tuple[ApiKey, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for plain in (key[1], f"{key[1]}x", f"podium_{'x' * 43}"):
            rerank(RequestFactory().post("/", **bearer(plain)))
        with pytest.raises(RuntimeError):
            broken(RequestFactory().post("/", **bearer(key[1])))
        Client().post("/nowhere", **bearer(key[1]))
    assert "Not Found: /nowhere" in caplog.text
    assert key[1][13:] not in caplog.text


def test_a_key_that_somebody_else_logs_is_hidden(key: tuple[ApiKey, str]) -> None:
    """In an address, where it does not belong, and in an error's text: by the handler in use."""
    written = io.StringIO()
    handler = next(h for h in logging.root.handlers if isinstance(h.formatter, LineWithoutKeys))
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(written)
    try:
        Client().get(f"/nowhere?api_key={key[1]}")
        logging.getLogger("django.request").warning("Not Found: %s", f"/{key[1]}/")
        try:
            raise ValueError(f"Bearer {key[1]}")
        except ValueError:
            logging.getLogger("any").exception("failed")
    finally:
        handler.setStream(before)
    lines = written.getvalue()
    assert "Not Found: /podium_…/" in lines
    assert "ValueError: Bearer podium_…" in lines
    assert key[1][7:] not in lines


def test_debug_pages_hide_the_header_that_carries_the_key(key: tuple[ApiKey, str]) -> None:
    request = RequestFactory().get("/", **bearer(key[1]))
    shown = get_exception_reporter_filter(request).get_safe_request_meta(request)
    assert key[1] not in str(shown)
