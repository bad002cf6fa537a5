"""Counting what keys ask for: per key, hour and family of endpoints."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakSet

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Sum
from django.utils import timezone

from searchapp.models import ApiKey, ApiUsage, Family
from searchapp.models.api_keys import ApiUsageQuerySet
from searchapp.models.corpus import AnyUser

logger = logging.getLogger(__name__)

LAST_USED_STEP = timedelta(minutes=1)

# While other calls go on, what is over waits at most so long to be written with them.
TOGETHER_SECONDS = 0.25

# One statement, one round trip. Losing the last second of counts to a crash is cheaper than
# waiting for the disk in every call: hence synchronous_commit off, for this statement only. A key
# that was deleted while its call ran has no counts any more.
_ADD = """
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO searchapp_apiusage (key_id, hour, family, calls, refused, pairs, bytes, tokens)
SELECT sums.* FROM quick, unnest(
  %s::bigint[], %s::timestamptz[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
  %s::bigint[], %s::bigint[]
) AS sums (key_id, hour, family, calls, refused, pairs, bytes, tokens)
JOIN searchapp_apikey ON searchapp_apikey.id = sums.key_id
ON CONFLICT (key_id, hour, family) DO UPDATE SET
  calls = searchapp_apiusage.calls + EXCLUDED.calls,
  refused = searchapp_apiusage.refused + EXCLUDED.refused,
  pairs = searchapp_apiusage.pairs + EXCLUDED.pairs,
  bytes = searchapp_apiusage.bytes + EXCLUDED.bytes,
  tokens = searchapp_apiusage.tokens + EXCLUDED.tokens
"""

# (key, hour, family) -> calls, refused, pairs, bytes, tokens
Sums = dict[tuple[int, datetime, str], list[int]]


@dataclass(eq=False)
class Meter:
    """What one call costs so far. Views add to it; limits add what they let through."""

    pairs: int = 0
    bytes: int = 0
    tokens: int = 0


class _Ledger:
    """Calls that are over and not written yet. The last one to end writes for all, so that nothing
    is left behind when none goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: WeakSet[Meter] = WeakSet()
        self._sums: Sums = {}
        self._since = 0.0

    def begin(self, meter: Meter) -> None:
        with self._lock:
            self._open.add(meter)

    def end(self, meter: Meter, counted: Sums) -> Sums:
        """What its caller is to write now: everything, or nothing yet."""
        now = time.monotonic()
        with self._lock:
            self._open.discard(meter)
            if not self._sums:
                self._since = now
            for name, amounts in counted.items():
                before = self._sums.get(name, [0] * len(amounts))
                self._sums[name] = [a + b for a, b in zip(before, amounts, strict=True)]
            if self._open and now - self._since < TOGETHER_SECONDS:
                return {}
            due, self._sums = self._sums, {}
        return due


_LEDGER = _Ledger()


def begin(meter: Meter) -> None:
    """A call that `record` will end."""
    _LEDGER.begin(meter)


def record(key: ApiKey, family: Family, meter: Meter, *, refused: bool) -> None:
    """Adds one call, also from many processes at once, and notes that the key was used.

    It is written at once, or together with the calls that go on meanwhile. A count that fails never
    fails the call, whose answer is made already.
    """
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    amounts = [1, int(refused), meter.pairs, meter.bytes, meter.tokens]
    try:
        _write(_LEDGER.end(meter, {(key.pk, hour, family.value): amounts}))
        if key.last_used_at is None or now - key.last_used_at >= LAST_USED_STEP:
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
    except DatabaseError as error:
        logger.warning("calls of key %s and others are not counted: %s", key.prefix, error)


def _write(sums: Sums) -> None:
    """Raises DatabaseError."""
    if not sums:
        return
    # In one order, so that two processes do not wait for each other.
    rows = [(*name, *amounts) for name, amounts in sorted(sums.items())]
    with connection.cursor() as cursor:
        cursor.execute(_ADD, list(map(list, zip(*rows, strict=True))))


def forget_old() -> int:
    """Deletes counts older than API_USAGE_DAYS (0 keeps all for ever); how many rows."""
    if not settings.API_USAGE_DAYS:
        return 0
    oldest = timezone.now() - timedelta(days=settings.API_USAGE_DAYS)
    # One key makes some 50,000 rows in 400 days at most: one statement takes them.
    return ApiUsage.objects.filter(hour__lt=oldest).delete()[0]


# --- what people see of it ---------------------------------------------------------------------

# Days back -> what the page calls them.
PERIODS = {1: "Last 24 hours", 7: "Last 7 days", 30: "Last 30 days"}


@dataclass(frozen=True)
class Bar:
    """One hour or day of the picture; heights are shares of the tallest bar, in percent."""

    begin: datetime
    calls: int
    refused: int
    x: float
    width: float
    height: float
    refused_height: float


@dataclass(frozen=True)
class Report:
    """Sums of a user's keys. `rows`: one per key and family, most calls first."""

    days: int
    total: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]
    bars: Sequence[Bar]

    @property
    def by_hour(self) -> bool:
        return self.days == 1


def report(user: AnyUser, days: int) -> Report:
    """What was asked with the user's own keys in the `days` before now, revoked keys included."""
    step = timedelta(hours=1) if days == 1 else timedelta(days=1)
    steps = 24 if days == 1 else days
    # In UTC, as it is counted: a day of another zone may begin within an hour.
    now = timezone.now().astimezone(UTC)
    last = now.replace(hour=now.hour if days == 1 else 0, minute=0, second=0, microsecond=0)
    begin = last - (steps - 1) * step
    used = ApiUsage.objects.of_keys_of(user).filter(hour__gte=begin)
    sums = {name: Sum(name) for name in ("calls", "refused", "pairs", "bytes", "tokens")}
    rows = used.values("key__name", "key__prefix", "family").annotate(**sums).order_by("-calls")
    labels = dict(Family.choices)
    return Report(
        days=days,
        total=used.totals(),
        rows=[{**row, "family": labels.get(row["family"], row["family"])} for row in rows],
        bars=_bars(used, begin, step, steps),
    )


def _bars(used: ApiUsageQuerySet, begin: datetime, step: timedelta, steps: int) -> list[Bar]:
    counted = [[0, 0] for _ in range(steps)]
    hours = (
        used.order_by("hour").values_list("hour").annotate(calls=Sum("calls"), no=Sum("refused"))
    )
    for hour, calls, refused in hours:
        # The clock may have gone on since `begin` was taken.
        slot = counted[min(steps - 1, (hour - begin) // step)]
        slot[0] += calls
        slot[1] += refused
    tallest = max(1, *(calls for calls, _ in counted))
    return [
        Bar(
            begin=begin + number * step,
            calls=calls,
            refused=refused,
            x=round(100 * number / steps, 3),
            width=round(100 / steps * 0.8, 3),
            height=round(100 * calls / tallest, 3),
            refused_height=round(100 * refused / tallest, 3),
        )
        for number, (calls, refused) in enumerate(counted)
    ]
