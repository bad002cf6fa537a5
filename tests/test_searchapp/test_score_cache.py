"""The score cache in a real Redis: what it keeps, what it drops, what it survives."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from rerank.inference.score_cache import document_key, group_key
from searchapp.engine import broker, outage, score_cache
from searchapp.engine.score_cache import RedisScoreCache


@pytest.fixture(autouse=True)
def empty_redis() -> Iterator[None]:
    client = broker.connection()
    client.flushdb()
    yield
    client.flushdb()


def documents(count: int, name: str = "d") -> list[bytes]:
    return [document_key(f"{name} {number}") for number in range(count)]


def kept_groups() -> int:
    return len(broker.hasty_connection().zrange(score_cache.USED, 0, -1))


def test_values_come_back_exactly_and_in_the_order_asked() -> None:
    cache = RedisScoreCache(10**6)
    values = np.float32([0.1, -7.25, 3e-20, 12345.678])
    keys = documents(4)
    cache.put_many(group_key("r", "q"), dict(zip(keys, values.tolist(), strict=True)))
    found = cache.get_many(group_key("r", "q"), [keys[2], document_key("new"), keys[0]])
    assert found == [float(values[2]), None, float(values[0])]
    assert cache.get_many(group_key("r", "other"), keys) == [None] * 4
    assert cache.get_many(group_key("other", "q"), keys) == [None] * 4
    assert cache.get_many(group_key("r", "q"), []) == []


def test_what_was_not_used_for_longest_goes_first() -> None:
    room = 3 * (score_cache.GROUP_BYTES + 10 * score_cache.ENTRY_BYTES)
    cache = RedisScoreCache(room)
    keys = documents(10)
    for name in ("a", "b", "c"):
        cache.put_many(group_key("r", name), dict.fromkeys(keys, 1.0))
        time.sleep(0.002)
    assert cache.get_many(group_key("r", "a"), keys) == [1.0] * 10  # used again
    cache.put_many(group_key("r", "d"), dict.fromkeys(keys, 2.0))
    assert cache.get_many(group_key("r", "b"), keys) == [None] * 10
    assert [cache.get_many(group_key("r", name), keys[:1])[0] for name in "acd"] == [1.0, 1.0, 2.0]


def test_the_bound_holds_for_the_memory_that_redis_really_uses() -> None:
    client = broker.hasty_connection()
    limit = 400_000
    cache = RedisScoreCache(limit)
    before = int(client.info("memory")["used_memory"])
    for number in range(150):
        # Some are small, some are too large for Redis' compact form, some come in two parts.
        count = (5, 100, 700)[number % 3]
        keys = documents(count, f"{number}")
        half = count // 2
        for part in (keys[:half], keys[half:]):
            cache.put_many(group_key("r", f"{number}"), dict.fromkeys(part, 0.5))
    assert int(client.get(score_cache.TOTAL) or 0) <= limit
    used = sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter("*"))
    assert limit * 0.2 < used <= limit
    assert int(client.info("memory")["used_memory"]) - before < limit * 1.2
    entries = sum(int(each) for each in client.hvals(score_cache.SIZES))
    estimate = kept_groups() * score_cache.GROUP_BYTES + entries * score_cache.ENTRY_BYTES
    assert int(client.get(score_cache.TOTAL) or 0) == estimate


def test_a_prompt_larger_than_the_whole_cache_is_not_kept() -> None:
    cache = RedisScoreCache(2000)
    cache.put_many(group_key("r", "q"), dict.fromkeys(documents(500), 1.0))
    assert kept_groups() == 0
    assert int(broker.hasty_connection().get(score_cache.TOTAL) or 0) == 0


def test_everything_expires_and_the_count_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    client = broker.hasty_connection()
    cache = RedisScoreCache(10**6)
    cache.put_many(group_key("r", "q"), dict.fromkeys(documents(10), 1.0))
    assert all(0 < client.ttl(key) <= score_cache.TTL_SECONDS for key in client.scan_iter("*"))
    # The hash has expired by itself, its place in the index has not.
    client.delete(score_cache.PREFIX + group_key("r", "q"))
    client.zadd(score_cache.USED, {score_cache.PREFIX + group_key("r", "q"): 1.0})
    cache.put_many(group_key("r", "new"), dict.fromkeys(documents(3), 1.0))
    assert kept_groups() == 1
    expected = score_cache.GROUP_BYTES + 3 * score_cache.ENTRY_BYTES
    assert int(client.get(score_cache.TOTAL) or 0) == expected


def knocks(server: socket.socket) -> int:
    """Connections since the last look."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def test_a_broker_that_is_down_means_no_cache_and_costs_one_try(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = RedisScoreCache(10**6)
    cache.put_many(b"g", {b"d": 1.0})
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 600)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setblocking(False)
        settings.REDIS_URL = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        assert cache.get_many(b"g", [b"d", b"e"]) == [None, None]
        assert knocks(deaf) > 0
        cache.put_many(b"g", {b"e": 1.0})
        assert cache.get_many(b"g", [b"d"]) == [None]
        assert knocks(deaf) == 0, "it does not try again at once"


def test_foreign_bytes_under_our_keys_are_no_error() -> None:
    cache = RedisScoreCache(10**6)
    broker.hasty_connection().set(score_cache.PREFIX + b"g", b"not a hash")
    assert cache.get_many(b"g", [b"d"]) == [None]
    cache.put_many(b"g", {b"d": 1.0})
