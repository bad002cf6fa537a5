"""The product's sockets without worker processes: local ones for real, remote ones with nobody."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rerank.inference.scorer import Scorer
from searchapp.engine import broker, cancelling, local, presence, remote, replies, serving
from searchapp.engine.sockets import RerankJob
from searchapp.models import Collection, Document, Passage


@pytest.fixture(autouse=True)
def empty_redis() -> Iterator[None]:
    client = broker.connection()
    client.flushdb()
    yield
    client.flushdb()


@pytest.fixture
def passages(db: None) -> list[Passage]:
    collection = Collection.objects.create_with_owner(slug="garden", name="Garden")
    document = Document.objects.create(collection=collection, path="a.txt", title="Tomatoes")
    texts = ["Water the tomato plants each morning.", "The history of the violin.", ""]
    return [
        Passage.objects.create(
            collection=collection, document=document, ordinal=i, text=text, start=0, end=len(text)
        )
        for i, text in enumerate(texts)
    ]


def job(passages: list[Passage] | list[int], seconds: float = 30.0, **changes: Any) -> RerankJob:
    ids = [p if isinstance(p, int) else p.pk for p in passages]
    fields: dict[str, Any] = {
        "query": "when to water tomatoes",
        "instruction": "",
        "passage_ids": ids,
        "priors": [0.5] * len(ids),
        "deadline": time.time() + seconds,
        **changes,
    }
    return RerankJob(**fields)


def test_a_local_rerank_scores_each_passage_in_the_order_asked(passages: list[Passage]) -> None:
    forward = local.rerank(job(passages))
    backward = local.rerank(job(passages[::-1]))
    assert forward.status == "ok", forward.reason
    assert (forward.scale, forward.model, forward.pairs) == ("untrained", "untrained", 3)
    assert forward.logits[0] > forward.logits[1]
    assert np.allclose(forward.logits, backward.logits[::-1], atol=5e-3)
    assert all(0 <= value <= 1 for value in forward.relevance)


def test_a_deleted_passage_does_not_break_the_job(passages: list[Passage]) -> None:
    outcome = local.rerank(job([passages[0].pk, 10**9, passages[1].pk]))
    assert outcome.status == "ok"
    assert len(outcome.logits) == 3


def test_a_model_that_is_not_offered_is_an_outcome_with_a_sentence(
    passages: list[Passage],
) -> None:
    outcome = local.rerank(job(passages, model="someone/huge-model"))
    assert outcome.status == "unavailable"
    assert "someone/huge-model" in outcome.reason and outcome.logits == ()


def test_a_job_past_its_deadline_is_not_scored(passages: list[Passage]) -> None:
    assert local.rerank(job(passages, seconds=-1)).status == "late"


def test_a_query_too_long_for_the_model_is_said_so(passages: list[Passage]) -> None:
    outcome = local.rerank(job(passages, query="word " * 600))
    assert outcome.status == "unavailable"
    assert "600 tokens" in outcome.reason


def test_the_local_socket_answers_each_ticket_once(passages: list[Passage]) -> None:
    socket = local.reranker()
    ticket = socket.submit(job(passages))
    assert socket.collect(ticket, time.time() + 30).status == "ok"
    assert socket.collect(ticket, time.time() + 30).status == "unavailable"


def test_local_query_vectors_have_length_one_and_one_model_has_many_names() -> None:
    vector = local.embed_query("how to water plants", "").vector
    again = local.embed_query("how to water plants", "all-MiniLM-L6-v2").vector
    assert vector is not None and vector.shape == (384,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(vector, again)
    assert local.load_embedder("") is local.load_embedder("sentence-transformers/all-MiniLM-L6-v2")


def test_an_embedder_that_does_not_exist_gives_a_sentence() -> None:
    outcome = local.embed_query("anything", "/nowhere/at/all")
    assert outcome.vector is None
    assert "/nowhere/at/all" in outcome.reason


def test_without_a_worker_the_remote_reranker_says_so_at_once() -> None:
    started = time.perf_counter()
    socket = remote.reranker()
    outcome = socket.collect(socket.submit(job([1, 2])), time.time() + 8)
    assert outcome.status == "unavailable"
    assert outcome.reason == "No rerank worker is running."
    assert time.perf_counter() - started < 3


def test_without_a_worker_the_remote_embedder_says_so_at_once() -> None:
    started = time.perf_counter()
    outcome = remote.embedder().embed_query("water", "", time.time() + 8)
    assert outcome.vector is None and outcome.reason == "No embed worker is running."
    assert time.perf_counter() - started < 3


def test_a_broker_that_is_down_is_an_outcome(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    socket = remote.reranker()
    outcome = socket.collect(socket.submit(job([1])), time.time() + 8)
    assert outcome.status == "unavailable" and "Redis" in outcome.reason
    assert "Redis" in remote.embedder().embed_query("water", "", time.time() + 8).reason


def test_a_worker_that_does_not_answer_in_time_is_late() -> None:
    heartbeat = presence.Heartbeat(["gpu"], "pretender", "CPU")
    heartbeat.start()
    try:
        wait_until(lambda: presence.alive("gpu"))
        socket = remote.reranker()
        sent = job([1, 2], seconds=2.5)
        outcome = socket.collect(socket.submit(sent), sent.deadline)
    finally:
        heartbeat.stop()
    assert outcome.status == "late"
    assert re.match(r"The reranker did not answer within [12](\.\d)? s", outcome.reason)


def test_a_worker_that_says_goodbye_during_a_search_ends_the_waiting() -> None:
    heartbeat = presence.Heartbeat(["gpu"])
    heartbeat.start()
    wait_until(lambda: presence.alive("gpu"))
    socket = remote.reranker()
    ticket = socket.submit(job([1, 2]))
    heartbeat.stop()
    started = time.perf_counter()
    outcome = socket.collect(ticket, time.time() + 20)
    assert outcome.status == "unavailable" and "stopped" in outcome.reason
    assert time.perf_counter() - started < 5


def test_an_answer_is_read_once_and_only_by_its_ticket() -> None:
    ticket, other = replies.new_ticket(), replies.new_ticket()
    replies.push(ticket, {"status": "ok"})
    assert replies.wait(other, time.time() + 0.05) is None
    assert replies.wait(ticket, time.time()) == {"status": "ok"}
    assert replies.wait(ticket, time.time() + 0.05) is None
    assert replies.wait("* nonsense", time.time() + 5) is None


def test_a_waiting_reader_wakes_as_soon_as_the_answer_is_pushed() -> None:
    ticket = replies.new_ticket()
    threading.Timer(0.3, replies.push, [ticket, {"n": 1}]).start()
    started = time.perf_counter()
    assert replies.wait(ticket, time.time() + 10) == {"n": 1}
    assert 0.25 < time.perf_counter() - started < 4


def test_a_worker_is_alive_until_it_withdraws() -> None:
    heartbeat = presence.Heartbeat(["gpu", "embed"], "a model", "a device")
    heartbeat.start()
    wait_until(lambda: presence.alive("embed"))
    (worker,) = presence.alive("gpu")
    assert (worker.model, worker.device) == ("a model", "a device")
    heartbeat.stop()
    assert presence.alive("gpu") == presence.alive("embed") == []


def test_a_job_survives_its_message() -> None:
    sent = job([3, 1], priors=[0.25, 1.0], instruction="prefer tables", model="default")
    received, submitted = remote.from_message(remote.as_message(sent))
    assert received == sent
    assert submitted == pytest.approx(time.time(), abs=5)


def test_threads_share_one_scorer_and_their_searches_are_merged(passages: list[Passage]) -> None:
    scoring = local.scorer()
    assert isinstance(scoring, Scorer) and scoring is local.scorer("untrained")
    texts = local.passage_texts([passage.pk for passage in passages])
    assert len(texts) == 3 and texts[0].startswith("Tomatoes")
    outcome = local.rerank(job(passages))
    assert outcome.status == "ok" and outcome.code == "" and outcome.cached == 0
    assert outcome.tokenize_ms > 0 and outcome.inference_ms > 0
    assert outcome.elapsed_ms >= outcome.tokenize_ms + outcome.inference_ms
    assert local.scorer_figures()["waiting_rows"] == 0


def test_every_failure_has_a_code_for_machines(passages: list[Passage]) -> None:
    assert local.rerank(job(passages, seconds=-1)).code == "late"
    assert local.rerank(job(passages, model="someone/huge-model")).code == "no-model"
    assert local.rerank(job(passages, query="word " * 600)).code == "bad-input"
    cancelled = local.rerank(job(passages), lambda: True)
    assert (cancelled.status, cancelled.code) == ("unavailable", "cancelled")
    assert remote.reranker().collect("no-worker", time.time()).code == "no-worker"


def test_a_refused_model_answers_every_job_with_the_reason(
    passages: list[Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_refused", {})
    local.refuse("default", "The reranker x failed a check and does not serve: it lies.")
    outcome = local.rerank(job(passages))
    assert (outcome.status, outcome.code) == ("unavailable", "no-model")
    assert outcome.reason.endswith("it lies.")


def test_a_long_queue_is_told_at_once(settings: Any) -> None:
    settings.RERANK_QUEUE_LIMIT = 3
    heartbeat = presence.Heartbeat(["gpu"], "pretender", "CPU")
    heartbeat.start()
    try:
        wait_until(lambda: presence.alive("gpu"))
        socket = remote.reranker()
        tickets = [socket.submit(job([1])) for _ in range(4)]
    finally:
        heartbeat.stop()
    assert tickets[3] == "overloaded" and "overloaded" not in tickets[:3]
    outcome = socket.collect("overloaded", time.time() + 8)
    assert (outcome.status, outcome.code) == ("unavailable", "overloaded")
    assert outcome.reason.startswith("The reranker is busy")


def test_a_worker_that_is_stopping_gets_no_new_work_but_is_waited_for() -> None:
    heartbeat = presence.Heartbeat(["gpu"], "pretender", "CPU")
    heartbeat.start()
    wait_until(lambda: presence.alive("gpu"))
    socket = remote.reranker()
    asked = job([1, 2], seconds=20)
    ticket = socket.submit(asked)
    heartbeat.announce_stopping()
    wait_until(lambda: not presence.alive("gpu"), seconds=10)
    assert socket.submit(job([1])) == "no-worker"
    threading.Timer(1.5, replies.push, [ticket, {"status": "ok"}]).start()
    assert socket.collect(ticket, asked.deadline).status == "ok"
    heartbeat.stop()
    assert presence.at_work("gpu") == []


def test_a_cancelled_ticket_is_heard_of_soon() -> None:
    watch = cancelling.Watch()
    tickets = [replies.new_ticket() for _ in range(3)]
    remote.reranker().cancel(tickets[0])
    with watch.on(tickets[0]) as before, watch.on(tickets[1]) as later, watch.on(tickets[2]) as no:
        assert before() and not later()
        remote.reranker().cancel(tickets[1])
        wait_until(later, seconds=15)
        assert not no()
    cancelling.cancel("* no ticket")
    assert broker.connection().keys("podium:cancelled:*") and not broker.connection().exists(
        "podium:cancelled:* no ticket"
    )


def test_an_answer_that_came_too_late_for_its_reader_cancels_the_work() -> None:
    heartbeat = presence.Heartbeat(["gpu"], "pretender", "CPU")
    heartbeat.start()
    try:
        wait_until(lambda: presence.alive("gpu"))
        socket = remote.reranker()
        asked = job([1, 2], seconds=0.2)
        ticket = socket.submit(asked)
        assert socket.collect(ticket, asked.deadline).code == "late"
    finally:
        heartbeat.stop()
    assert cancelling.is_cancelled(ticket)


def test_the_worker_answers_a_cancelled_job_so_that_its_reader_need_not_wait(
    passages: list[Passage],
) -> None:
    ticket = replies.new_ticket()
    cancelling.cancel(ticket)
    assert serving.answer_rerank(ticket, remote.as_message(job(passages))) == "unavailable"
    outcome = remote.reranker().collect(ticket, time.time() + 5)
    assert outcome.code == "cancelled"


def test_a_worker_of_another_version_is_still_read() -> None:
    entry = '{"queue": "gpu", "host": "a", "pid": 1, "model": "m", "device": "d", "since": 1.0, '
    entry += f'"seen": {time.time()}, "something_new": 7}}'
    broker.connection().hset("podium:workers:gpu", "a:1", entry)
    (worker,) = presence.alive("gpu")
    assert worker.model == "m" and worker.reason == ""


def wait_until(condition: Any, seconds: float = 5.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.02)
