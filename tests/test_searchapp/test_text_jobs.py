"""Texts on their way to a worker: left beside the message, urgent ones first, gone in time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

from searchapp.engine import broker, local, luggage, remote, replies, serving
from searchapp.engine.packed import packed, unpacked
from searchapp.engine.presence import Heartbeat
from searchapp.engine.sockets import TextsJob, VectorsOutcome

URGENT, PATIENT = "gpu", "gpu\x06\x169"


@pytest.fixture(autouse=True)
def empty_redis() -> Iterator[None]:
    client = broker.connection()
    client.flushdb()
    yield
    client.flushdb()


def job(seconds: float = 30.0, **changes: object) -> TextsJob:
    return TextsJob("heron", ["A heron.", "Ein Reiher: ä😀"], time.time() + seconds, **changes)  # type: ignore[arg-type]


@pytest.fixture
def worker_in_sight() -> Iterator[None]:
    """Announced, but it takes nothing: messages stay where they are."""
    heartbeat = Heartbeat(["gpu", "embed"], "model", "cpu")
    heartbeat.start()
    end = time.time() + 5
    while not broker.connection().exists("podium:workers:gpu"):
        assert time.time() < end
        time.sleep(0.01)
    yield
    heartbeat.stop()


def test_texts_are_taken_once_and_expire() -> None:
    ticket = replies.new_ticket()
    luggage.leave(ticket, ["a", "ä😀"], time.time() + 10)
    assert luggage.take(ticket) == ["a", "ä😀"]
    assert luggage.take(ticket) is None
    luggage.leave(ticket, ["a"], time.time() - 100)
    left = broker.connection().ttl(f"podium:texts:{ticket}")
    assert 0 < left <= luggage.SPARE_SECONDS + 1


def test_urgent_and_patient_jobs_wait_in_lists_of_their_own(worker_in_sight: None) -> None:
    client, socket = broker.connection(), remote.reranker()
    patient = socket.submit(job(urgent=False))
    urgent = socket.submit(job(model="default"))
    assert (client.llen(URGENT), client.llen(PATIENT)) == (1, 1)
    message = client.lindex(URGENT, 0)
    assert isinstance(message, str) and "Reiher" not in message
    assert luggage.take(urgent) == luggage.take(patient) == list(job().texts)


def test_many_patient_jobs_make_no_urgent_one_wait(worker_in_sight: None, settings) -> None:
    settings.RERANK_QUEUE_LIMIT = 2
    socket = remote.reranker()
    tickets = [socket.submit(job(urgent=False)) for _ in range(3)]
    assert tickets[2] == "overloaded" and socket.submit(job()) != "overloaded"


def test_without_a_worker_or_texts_nothing_is_scored() -> None:
    socket = remote.reranker()
    outcome = socket.collect(socket.submit(job()), time.time() + 1)
    assert (outcome.status, outcome.code) == ("unavailable", "no-worker")
    message = {"query": "q", "deadline": time.time() + 9, "submitted": time.time()}
    assert serving.answer_texts(replies.new_ticket(), message) == "late"
    made = remote.embed_texts(["a"], "default", time.time() + 1, as_queries=True)
    assert made.vectors is None and made.code == "no-worker"


def test_the_worker_scores_texts_as_this_process_does() -> None:
    asked = job(seconds=300, model="untrained")
    ticket = replies.new_ticket()
    luggage.leave(ticket, asked.texts, asked.deadline)
    message = {"query": asked.query, "deadline": asked.deadline, "model": "untrained"}
    message = json.loads(json.dumps({**message, "submitted": time.time()}))
    assert serving.answer_texts(ticket, message) == "ok"
    answer = replies.wait(ticket, time.time() + 5)
    assert answer is not None and answer["tokens"] > 0
    assert answer["logits"] == pytest.approx(local.rerank(asked).logits, abs=1e-3)
    late = job(seconds=-1, model="untrained")
    assert local.rerank(late).status == "late"


def test_vectors_come_back_as_they_were_sent() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    again = unpacked(json.loads(json.dumps(packed(VectorsOutcome(vectors, elapsed_ms=2.0)))))
    assert again.vectors is not None and np.array_equal(again.vectors, vectors)
    none = unpacked(json.loads(json.dumps(packed(VectorsOutcome(None, "No.", "failed")))))
    assert (none.vectors, none.reason, none.code) == (None, "No.", "failed")


def test_an_embedder_that_is_not_offered_is_an_outcome() -> None:
    made = local.embed_texts(["a"], "someone/huge-embedder", as_queries=False)
    assert made.vectors is None and made.code == "no-model"
