"""A Redis of our own that stops answering, as one does on a machine that has stalled, or is gone:
who asked it only to save work does not wait for it again and again."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from rerank.types import FloatArray
from searchapp.embedded.redis import RedisServer, start_redis
from searchapp.embedded.state import make_var_dir, read_state
from searchapp.engine import broker
from searchapp.ingest import embedding, queueing
from searchapp.models import PendingVector
from searchapp.search.vectors import ensure_generation
from tests.shelves import add_document, make_collection

pytestmark = [pytest.mark.process, pytest.mark.django_db]

BATCHES = 12
# Two questions a batch: what the begin of each look and the way given after it used to cost.
ASKED_EACH_TIME = 2 * BATCHES * broker.HASTY_TIMEOUT_SECONDS


@pytest.fixture
def redis(
    tmp_path_factory: pytest.TempPathFactory, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisServer]:
    """Ours to stop. Nothing is known of an outage yet."""
    folder = tmp_path_factory.mktemp("redis") / "var"
    make_var_dir(folder)
    server = start_redis(folder, dies_with_us=True)
    monkeypatch.setattr(queueing._outage, "_until", 0.0)
    monkeypatch.setattr(queueing._outage, "_said", False)
    settings.REDIS_URL = server.url
    try:
        yield server
    finally:
        if process := server.process():
            process.kill()
        if home := read_state(folder).get("home"):
            shutil.rmtree(home, ignore_errors=True)


def stall(server: RedisServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)


def end(server: RedisServer) -> None:
    os.kill(server.pid, signal.SIGKILL)


def embed(texts: Sequence[str], model: str) -> FloatArray:
    return np.eye(1, 384, dtype=np.float32).repeat(len(texts), axis=0)


def passages_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for BATCHES batches of one each."""
    collection = make_collection("birds")
    document = add_document(collection, "Birds", [f"Bird {each}." for each in range(BATCHES)])
    generation = ensure_generation(collection)
    PendingVector.objects.bulk_create(
        PendingVector(generation=generation, passage=passage) for passage in document.passages.all()
    )
    for name in ("FIRST_BATCH", "LEAST_BATCH", "MOST_BATCH"):
        monkeypatch.setattr(embedding, name, 1)


@pytest.mark.parametrize("fail", [stall, end])
def test_embedding_asks_a_dead_redis_once_and_not_for_every_batch(
    redis: RedisServer, fail: Callable[[RedisServer], None],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    passages_wait(monkeypatch)
    broker.hasty_connection().ping()
    fail(redis)
    with caplog.at_level(logging.WARNING, logger=queueing.__name__):
        began = time.monotonic()
        assert embedding.embed_pending(embed, give_way=embedding._give_way) == BATCHES
        took = time.monotonic() - began
    assert took < ASKED_EACH_TIME / 3
    assert [record.getMessage().split(" until")[0] for record in caplog.records] == [
        "every commit sends its own message"
    ]


def test_a_round_of_looks_clears_the_mark_as_soon_as_redis_is_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a commit just after it would find the mark, send nothing and wait for the sweep."""
    sent: list[str] = []
    monkeypatch.setattr(queueing, "_send", lambda name, args, queue: sent.append(name))
    queueing._ask_for_embedding()
    stall(redis)
    began = time.monotonic()
    for _ in range(10):
        queueing._ask_for_embedding()
        assert not queueing.embedding_is_asked()
    assert time.monotonic() - began < 10 * broker.HASTY_TIMEOUT_SECONDS
    assert len(sent) == 11, "where Redis does not say who was first, every commit sends"
    os.kill(redis.pid, signal.SIGCONT)
    embedding.embed_pending(embed)
    assert not broker.hasty_connection().exists(queueing._EMBED_ASKED)
