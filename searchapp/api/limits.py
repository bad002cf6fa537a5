"""How much a key may ask for: token buckets in Redis, filled steadily, emptied by cost.

A key has one bucket of requests, and per latency mode one of bytes and one of pairs. Each holds a
minute's worth and starts full. A call takes from all of its buckets or from none, in one script
that Redis runs alone, so that no number of callers together gets more than the buckets held.

When Redis does not answer, calls are let through: a limit shares the machine out fairly, it
guards no secret, and a broker that is down would else close every endpoint that works without it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import redis
from django.conf import settings

from searchapp.engine.broker import BrokerDown, hasty_connection
from searchapp.engine.outage import Outage

from .refusals import Refusal

if TYPE_CHECKING:
    from .auth import Caller

logger = logging.getLogger(__name__)

Latency = Literal["fast", "slow"]

# What the contract adds to each text, for the work around it.
BYTES_PER_TEXT = 150

# KEYS[1]: the key's hash, bucket -> tokens, and `at`, when they were counted.
# ARGV: per latency mode to try, the number of its buckets, then name, capacity and cost of each.
# Returns {index of the mode, 0}, or {0, milliseconds until the first mode to open would do}.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local kept = {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do kept[stored[i]] = tonumber(stored[i + 1]) end
local function held(name, capacity)
  local tokens, at = kept[name], kept[name .. '.at']
  if not tokens or not at then return capacity end
  return math.min(capacity, tokens + capacity * math.max(0, now - at) / 60000)
end
local soonest, mode, at = nil, 0, 1
while at <= #ARGV do
  mode = mode + 1
  local count, wait, taken = tonumber(ARGV[at]), 0, {}
  at = at + 1
  for _ = 1, count do
    local name, capacity, cost = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    at = at + 3
    local left = held(name, capacity) - cost
    if left < 0 then wait = math.max(wait, math.ceil(-left * 60000 / capacity)) end
    taken[#taken + 1] = name
    taken[#taken + 1] = string.format('%.6f', left)
    taken[#taken + 1] = name .. '.at'
    taken[#taken + 1] = string.format('%d', now)
  end
  if wait == 0 then
    if #taken > 0 then
      redis.call('HSET', KEYS[1], unpack(taken))
      redis.call('EXPIRE', KEYS[1], 120)
    end
    return {mode, 0}
  end
  if not soonest or wait < soonest then soonest = wait end
end
return {0, soonest}
"""


@dataclass(frozen=True)
class Cost:
    """What a call asks for. `bytes` as `cost_of_rerank` and `cost_of_texts` count them."""

    requests: int = 0
    bytes: int = 0
    pairs: int = 0


ONE_REQUEST = Cost(requests=1)


@dataclass(frozen=True)
class Granted:
    """The call may go on, in this latency mode."""

    latency: Latency


def cost_of_rerank(query: str, documents: Sequence[str]) -> Cost:
    """150 bytes and the query's for every document, and the documents' own; one pair each."""
    own = BYTES_PER_TEXT + len(query.encode("utf-8", "surrogatepass"))
    total = sum(own + len(each.encode("utf-8", "surrogatepass")) for each in documents)
    return Cost(bytes=total, pairs=len(documents))


def cost_of_texts(texts: Sequence[str]) -> Cost:
    """150 bytes for every text, and its own."""
    sizes = (len(each.encode("utf-8", "surrogatepass")) for each in texts)
    return Cost(bytes=sum(sizes) + BYTES_PER_TEXT * len(texts))


def charge(caller: Caller, cost: Cost, latency: Latency | None = None) -> Granted | Refusal:
    """Takes the cost from the key's buckets. `latency` None tries fast, then slow.

    `keyed` has already taken the request itself; endpoints charge the bytes and pairs they read.
    429 with the time to wait when they hold too little now; 400 when they never hold as much.
    """
    if 0 < settings.API_MAX_REQUEST_BYTES < cost.bytes:
        return Refusal(
            400,
            "too-large",
            f"This request counts as {cost.bytes:,} bytes; one may have up to "
            f"{settings.API_MAX_REQUEST_BYTES:,}. Send fewer or shorter documents.",
        )
    modes: list[Latency] = [latency] if latency else ["fast", "slow"]
    possible = [mode for mode in modes if _fits(mode, cost)]
    if not possible:
        return Refusal(
            400,
            "above-limit",
            "This request needs more bytes or pairs than this API key is given in a minute. "
            "Send fewer or shorter documents in one request.",
        )
    mode, wait = _take(caller.key.pk, possible, cost)
    if mode is None:
        return Refusal(
            429,
            "rate-limited",
            f"This API key has used up its limit. Try again in {wait:.1f} s.",
            retry_after=wait,
        )
    caller.meter.bytes += cost.bytes
    caller.meter.pairs += cost.pairs
    return Granted(mode)


def _buckets(mode: Latency, cost: Cost) -> list[tuple[str, int, int]]:
    """(name, capacity, cost) of what the call takes from; limits of 0 are none."""
    fast = mode == "fast"
    of_bytes = settings.API_FAST_BYTES_PER_MINUTE if fast else settings.API_SLOW_BYTES_PER_MINUTE
    of_pairs = settings.API_FAST_PAIRS_PER_MINUTE if fast else settings.API_SLOW_PAIRS_PER_MINUTE
    buckets = [
        ("requests", settings.API_REQUESTS_PER_MINUTE, cost.requests),
        (f"{mode}.bytes", of_bytes, cost.bytes),
        (f"{mode}.pairs", of_pairs, cost.pairs),
    ]
    return [(name, capacity, asked) for name, capacity, asked in buckets if capacity and asked]


def _fits(mode: Latency, cost: Cost) -> bool:
    return all(asked <= capacity for _, capacity, asked in _buckets(mode, cost))


def _take(key_id: int, modes: Sequence[Latency], cost: Cost) -> tuple[Latency | None, float]:
    """The mode that was open, or None and the seconds until one will be."""
    if _outage.paused() or not _buckets(modes[0], cost):
        return modes[0], 0.0
    arguments: list[str | int] = []
    for mode in modes:
        buckets = _buckets(mode, cost)
        arguments.append(len(buckets))
        for bucket in buckets:
            arguments += bucket
    try:
        taken, wait = _script()(
            keys=[f"podium:limits:{key_id}"], args=arguments, client=hasty_connection()
        )
    except BrokerDown as error:
        _outage.begin(error)
        return modes[0], 0.0
    _outage.end()
    return (modes[taken - 1], 0.0) if taken else (None, wait / 1000)


@functools.lru_cache(maxsize=1)
def _script() -> redis.commands.core.Script:
    return hasty_connection().register_script(_TAKE)


_outage = Outage(logger, "the API's limits are off", "the API's limits are on again")
