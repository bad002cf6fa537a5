"""Raw scores kept in the broker's Redis, so that a repeated search costs no inference.

One Redis hash per (model revision, prompt) holds document digest -> float32. A sorted set orders
the hashes by their last use and a third key counts their entries, from which the bytes are
estimated on the high side; what goes beyond the bound evicts the hashes longest unused. Hashes
not written to for TTL_SECONDS expire by themselves. Both reading and writing are one round trip.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from searchapp.engine.broker import BrokerDown, hasty_connection
from searchapp.engine.outage import Outage

logger = logging.getLogger(__name__)

TTL_SECONDS = 7 * 24 * 3600
# What one hash and one entry of it take at most: with Redis 6.2 an entry takes 25 bytes in a hash
# of up to 512 and 94 in a longer one, index included.
GROUP_BYTES = 600
ENTRY_BYTES = 100

PREFIX = b"podium:scores:"
USED = PREFIX + b"used"  # sorted set: hash -> when it was last used
SIZES = PREFIX + b"sizes"  # hash: hash -> its entries
TOTAL = PREFIX + b"bytes"

# KEYS: the hash, USED, SIZES, TOTAL. ARGV: now, TTL, limit, bytes per hash, bytes per entry,
# then field and value in turn.
_PUT = """
local used, sizes, total = KEYS[2], KEYS[3], KEYS[4]
local group_bytes, entry_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local function forget(group)
  local entries = redis.call('HGET', sizes, group)
  redis.call('UNLINK', group)
  redis.call('ZREM', used, group)
  redis.call('HDEL', sizes, group)
  if entries then
    redis.call('DECRBY', total, group_bytes + entry_bytes * tonumber(entries))
  end
end
local expired = redis.call('ZRANGEBYSCORE', used, '-inf', tonumber(ARGV[1]) - tonumber(ARGV[2]),
                           'LIMIT', 0, 100)
for _, group in ipairs(expired) do forget(group) end
for at = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
local before = redis.call('HGET', sizes, KEYS[1])
local after = redis.call('HLEN', KEYS[1])
local grown = entry_bytes * after
if before then grown = grown - entry_bytes * tonumber(before) else grown = grown + group_bytes end
redis.call('HSET', sizes, KEYS[1], after)
redis.call('ZADD', used, ARGV[1], KEYS[1])
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[2]) end
local bytes = redis.call('INCRBY', total, grown)
redis.call('EXPIRE', total, ARGV[2])
while bytes > tonumber(ARGV[3]) do
  local oldest = redis.call('ZRANGE', used, 0, 0)
  if #oldest == 0 then
    redis.call('SET', total, 0)
    break
  end
  forget(oldest[1])
  bytes = tonumber(redis.call('GET', total))
end
return bytes
"""


class RedisScoreCache:
    """The engine's `ScoreCache`. A broker that is down or slow means no cache, never an error."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = settings.SCORE_CACHE_BYTES if limit_bytes is None else limit_bytes
        self._outage = Outage(logger, "scores are not kept", "scores are kept again")

    def get_many(self, group: bytes, documents: Sequence[bytes]) -> Sequence[float | None]:
        nothing: list[float | None] = [None] * len(documents)
        if not documents or self._outage.paused():
            return nothing
        key = PREFIX + group
        try:
            pipeline = hasty_connection().pipeline(transaction=False)
            pipeline.hmget(key, list(documents))
            pipeline.zadd(USED, {key: time.time()}, xx=True)
            found, _ = pipeline.execute()
        except BrokerDown as error:
            self._outage.begin(error)
            return nothing
        self._outage.end()
        return [None if value is None else struct.unpack("<f", value)[0] for value in found]

    def put_many(self, group: bytes, values: Mapping[bytes, float]) -> None:
        if not values or self._outage.paused():
            return
        keys = [PREFIX + group, USED, SIZES, TOTAL]
        arguments: list[Any] = [time.time(), TTL_SECONDS, self._limit, GROUP_BYTES, ENTRY_BYTES]
        for document, value in values.items():
            arguments += [document, struct.pack("<f", value)]
        try:
            hasty_connection().eval(_PUT, len(keys), *keys, *arguments)
        except BrokerDown as error:
            self._outage.begin(error)
            return
        self._outage.end()
