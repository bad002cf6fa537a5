"""This process's connection to Redis, for answers and heartbeats (Celery keeps its own)."""

from __future__ import annotations

import functools

import redis
from django.conf import settings

# A read may block this long before it counts as broken; blocking waits stay below it.
SOCKET_TIMEOUT_SECONDS = 5.0
# What is only asked to save work must not cost more than the work.
HASTY_TIMEOUT_SECONDS = 0.25
# What a dead or unreachable broker raises.
BrokerDown = redis.RedisError


@functools.lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=2.0,
        health_check_interval=30,
        decode_responses=True,
    )


@functools.lru_cache(maxsize=4)
def _hasty_client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=HASTY_TIMEOUT_SECONDS,
        socket_connect_timeout=HASTY_TIMEOUT_SECONDS,
        decode_responses=False,
    )


def connection() -> redis.Redis:
    """Connections are pooled; safe from any thread. Connects at the first command."""
    return _client(settings.REDIS_URL)


def hasty_connection() -> redis.Redis:
    """As `connection`, for bytes and for callers who would rather have no answer than wait."""
    return _hasty_client(settings.REDIS_URL)
