"""This process's connection to Redis, for answers and heartbeats (Celery keeps its own)."""

from __future__ import annotations

import functools

import redis
from django.conf import settings

# A read may block this long before it counts as broken; blocking waits stay below it.
SOCKET_TIMEOUT_SECONDS = 5.0
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


def connection() -> redis.Redis:
    """Connections are pooled; safe from any thread. Connects at the first command."""
    return _client(settings.REDIS_URL)
