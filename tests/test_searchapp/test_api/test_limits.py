"""The buckets, on a real Redis: never more than they hold, no matter how many ask at once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from django.contrib.auth.models import User

from searchapp.api import limits
from searchapp.api.auth import Caller
from searchapp.api.limits import (
    ONE_REQUEST,
    Cost,
    Granted,
    charge,
    cost_of_rerank,
    cost_of_texts,
)
from searchapp.api.refusals import Refusal
from searchapp.api.usage import Meter
from searchapp.engine import broker, outage
from tests.callers import caller, make_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def asker(settings: object) -> Caller:
    """A caller with a key that no test has used, and small limits."""
    for name, value in {
        "API_REQUESTS_PER_MINUTE": 600,
        "API_FAST_BYTES_PER_MINUTE": 60_000,
        "API_SLOW_BYTES_PER_MINUTE": 600_000,
        "API_FAST_PAIRS_PER_MINUTE": 100,
        "API_SLOW_PAIRS_PER_MINUTE": 1000,
        "API_MAX_REQUEST_BYTES": 500_000,
    }.items():
        setattr(settings, name, value)
    # Keys of rolled back tests return with the same number, and find their buckets.
    found = caller(make_key(User.objects.create_user("olive"))[1])
    broker.connection().delete(f"podium:limits:{found.key.pk}")
    return found


def test_bytes_are_counted_as_the_contract_says() -> None:
    # 2 documents: 2 × (150 + 5 bytes of "héro") + 3 + 4
    assert cost_of_rerank("héro", ["abc", "日a"]) == Cost(bytes=317, pairs=2)
    assert cost_of_texts(["abc", ""]) == Cost(bytes=303)
    assert cost_of_rerank("q", []) == Cost(bytes=0, pairs=0)
    assert cost_of_texts(["\ud800"]).bytes == 153  # half a character, as JSON may bring it


def test_fast_first_then_slow_then_a_time_to_wait(asker: Caller) -> None:
    cost = Cost(pairs=60)
    assert charge(asker, cost) == Granted("fast")
    assert charge(asker, cost) == Granted("slow")
    refusal = charge(asker, cost, "fast")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 429
    # 20 pairs are missing, and 100 come a minute: 12 s.
    assert refusal.retry_after == pytest.approx(12, abs=0.5)
    headers = refusal.headers()
    assert headers["x-should-retry"] == "true"
    assert headers["retry-after"] == "12"
    assert 11_500 <= int(headers["retry-after-ms"]) <= 12_000
    assert charge(asker, cost, "slow") == Granted("slow")
    assert asker.meter.pairs == 180


def test_the_time_to_wait_is_the_time_to_wait(asker: Caller) -> None:
    assert isinstance(charge(asker, Cost(bytes=60_000), "fast"), Granted)
    refusal = charge(asker, Cost(bytes=1000), "fast")
    assert isinstance(refusal, Refusal)
    time.sleep(refusal.retry_after or 0)
    assert isinstance(charge(asker, Cost(bytes=1000), "fast"), Granted)


def test_a_refused_call_takes_from_no_bucket(asker: Caller) -> None:
    charge(asker, Cost(pairs=100), "fast")
    for _ in range(20):
        assert isinstance(charge(asker, Cost(bytes=50_000, pairs=50), "fast"), Refusal)
    assert isinstance(charge(asker, Cost(bytes=60_000), "fast"), Granted)


def test_what_never_fits_is_not_worth_a_retry(asker: Caller) -> None:
    for cost, latency in (
        (Cost(bytes=500_001), None),
        (Cost(bytes=60_001), "fast"),
        (Cost(pairs=1001), None),
    ):
        refusal = charge(asker, cost, latency)
        assert isinstance(refusal, Refusal)
        assert refusal.status == 400
        assert refusal.headers()["x-should-retry"] == "false"
    assert charge(asker, Cost(bytes=60_001)) == Granted("slow")


def test_zero_is_no_limit(asker: Caller, settings: object) -> None:
    for name in ("REQUESTS", "FAST_BYTES", "FAST_PAIRS"):
        setattr(settings, f"API_{name}_PER_MINUTE", 0)
    settings.API_MAX_REQUEST_BYTES = 0  # type: ignore[attr-defined]
    assert charge(asker, Cost(bytes=10**12, pairs=10**9)) == Granted("fast")


def test_thirty_two_threads_never_get_more_than_the_buckets_hold(asker: Caller) -> None:
    """5 pairs each from 100 fast and 1000 slow ones: all there is is given, and no pair more."""
    began = time.monotonic()

    def ask(_: int) -> str:
        found = charge(asker, Cost(bytes=200, pairs=5))
        return found.latency if isinstance(found, Granted) else str(found.status)

    with ThreadPoolExecutor(32) as pool:
        ends = Counter(pool.map(ask, range(640)))
    minutes = (time.monotonic() - began) / 60
    assert sum(ends.values()) == 640
    assert 100 <= ends["fast"] * 5 <= 100 + 100 * minutes
    assert 1000 <= ends["slow"] * 5 <= 1000 + 1000 * minutes
    assert ends["429"] == 640 - ends["fast"] - ends["slow"]


def test_thirty_two_threads_share_bytes_exactly(asker: Caller, settings: object) -> None:
    settings.API_REQUESTS_PER_MINUTE = 0  # type: ignore[attr-defined]
    began = time.monotonic()

    def ask(number: int) -> int:
        size = 100 + number % 7 * 500
        return size if isinstance(charge(asker, Cost(bytes=size), "fast"), Granted) else 0

    with ThreadPoolExecutor(32) as pool:
        taken = sum(pool.map(ask, range(640)))
    refilled = 60_000 * (time.monotonic() - began) / 60
    # The smallest call fits as long as 100 bytes are left.
    assert 60_000 - 100 <= taken <= 60_000 + refilled


def test_requests_have_a_bucket_of_their_own(asker: Caller, settings: object) -> None:
    settings.API_REQUESTS_PER_MINUTE = 2  # type: ignore[attr-defined]
    ends = [charge(asker, ONE_REQUEST) for _ in range(3)]
    assert ends[:2] == [Granted("fast")] * 2
    assert isinstance(ends[2], Refusal)
    assert ends[2].retry_after == pytest.approx(30, abs=3)
    assert asdict(asker.meter) == asdict(Meter())


def test_keys_do_not_share_their_buckets(asker: Caller) -> None:
    other = caller(make_key(asker.key.owner)[1])
    broker.connection().delete(f"podium:limits:{other.key.pk}")
    charge(asker, Cost(pairs=100), "fast")
    assert isinstance(charge(asker, Cost(pairs=1), "fast"), Refusal)
    assert isinstance(charge(other, Cost(pairs=100), "fast"), Granted)


def test_buckets_are_forgotten_when_they_are_full_again(asker: Caller) -> None:
    charge(asker, Cost(pairs=1))
    assert 60 < broker.connection().ttl(f"podium:limits:{asker.key.pk}") <= 120


def test_without_redis_calls_are_let_through_and_it_is_said_once(
    asker: Caller, settings: object, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limits._outage, "_until", 0.0)
    monkeypatch.setattr(limits._outage, "_said", False)
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.05)
    alive = settings.REDIS_URL  # type: ignore[attr-defined]
    settings.REDIS_URL = "redis://127.0.0.1:1/0"  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING, logger="searchapp.api.limits"):
        for _ in range(3):
            assert isinstance(charge(asker, Cost(pairs=100), "fast"), Granted)
            time.sleep(0.06)
        settings.REDIS_URL = alive  # type: ignore[attr-defined]
        assert isinstance(charge(asker, Cost(pairs=100), "fast"), Granted)
        assert isinstance(charge(asker, Cost(pairs=100), "fast"), Refusal)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said] == [
        "the API's limits are off until Redis answers",
        "the API's limits are on again",
    ]
