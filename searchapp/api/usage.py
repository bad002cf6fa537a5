"""Counting what keys ask for: per key, hour and family of endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, connection
from django.utils import timezone

from searchapp.models import ApiKey, Family

LAST_USED_STEP = timedelta(minutes=1)

# One statement, one round trip. Losing the last second of counts to a crash is cheaper than
# waiting for the disk in every call: hence synchronous_commit off, for this statement only.
_ADD = """
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO searchapp_apiusage (key_id, hour, family, calls, refused, pairs, bytes, tokens)
SELECT %s, date_trunc('hour', %s AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', %s, 1, %s, %s, %s, %s
FROM quick
ON CONFLICT (key_id, hour, family) DO UPDATE SET
  calls = searchapp_apiusage.calls + 1,
  refused = searchapp_apiusage.refused + EXCLUDED.refused,
  pairs = searchapp_apiusage.pairs + EXCLUDED.pairs,
  bytes = searchapp_apiusage.bytes + EXCLUDED.bytes,
  tokens = searchapp_apiusage.tokens + EXCLUDED.tokens
"""


@dataclass
class Meter:
    """What one call costs so far. Views add to it; limits add what they let through."""

    pairs: int = 0
    bytes: int = 0
    tokens: int = 0


def record(key: ApiKey, family: Family, meter: Meter, *, refused: bool) -> None:
    """Adds one call, also from many processes at once, and notes that the key was used."""
    now = timezone.now()
    amounts = [int(refused), meter.pairs, meter.bytes, meter.tokens]
    try:
        with connection.cursor() as cursor:
            cursor.execute(_ADD, [key.pk, now, family.value, *amounts])
    except IntegrityError:
        return  # the key was deleted while the call ran, and its counts with it
    if key.last_used_at is None or now - key.last_used_at >= LAST_USED_STEP:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
