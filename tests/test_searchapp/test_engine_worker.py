"""The remote sockets with a real Celery worker process behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import connection

from searchapp.celery import app
from searchapp.engine import broker, local, presence, remote
from searchapp.engine.sockets import RerankJob
from searchapp.models import Collection, Document, DocumentStatus, Passage, PendingVector
from searchapp.search.vectors import ensure_generation

ROOT = Path(__file__).resolve().parent.parent.parent
CELERY = [sys.executable, "-m", "celery", "-A", "searchapp"]

pytestmark = [
    pytest.mark.process,
    pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS),
]


def database_url() -> str:
    """The URL of this session's test database, for a process of its own."""
    made = connection.settings_dict
    name = made["NAME"]
    return (
        f"postgresql://{made['USER']}:{made['PASSWORD']}@{made['HOST'] or '127.0.0.1'}"
        f":{made['PORT']}/{name}"
    )


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    broker.connection().flushdb()
    log = (tmp_path / "worker.log").open("wb")
    process = subprocess.Popen(
        [*CELERY, "worker", "--queues=gpu,embed", "--pool=threads", "--concurrency=8"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url()},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.time() + 90
        while not presence.alive("gpu"):
            assert process.poll() is None and time.time() < end, (
                tmp_path / "worker.log"
            ).read_text()
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        log.close()


def passage_ids() -> list[int]:
    collection = Collection.objects.create_with_owner(slug="garden", name="Garden")
    document = Document.objects.create(collection=collection, path="a.txt", title="Tomatoes")
    texts = ["Water the tomato plants each morning.", "The history of the violin."]
    return [
        Passage.objects.create(
            collection=collection, document=document, ordinal=i, text=text, start=0, end=len(text)
        ).pk
        for i, text in enumerate(texts)
    ]


def job(ids: list[int], seconds: float = 20, **changes: Any) -> RerankJob:
    return RerankJob(
        "when to water tomatoes", "", ids, [0.5] * len(ids), time.time() + seconds, **changes
    )


def test_a_worker_process_reranks_embeds_and_says_goodbye(
    worker: subprocess.Popen[bytes],
) -> None:
    (info,) = presence.alive("gpu")
    assert info.pid == worker.pid and info.model and info.device

    asked = job(passage_ids())
    socket = remote.reranker()
    outcome = socket.collect(socket.submit(asked), asked.deadline)
    assert outcome.status == "ok", outcome.reason
    assert outcome.logits[0] > outcome.logits[1]
    assert outcome.logits == pytest.approx(local.rerank(asked).logits, abs=1e-3)
    assert outcome.device and outcome.pairs == 2 and outcome.inference_ms > 0

    embedded = remote.embedder().embed_query("water", "", time.time() + 20)
    assert embedded.vector is not None, embedded.reason
    assert np.linalg.norm(embedded.vector) == pytest.approx(1.0, abs=1e-4)

    generation = ensure_generation(Collection.objects.get())
    PendingVector.objects.bulk_create(
        PendingVector(generation=generation, passage_id=pk) for pk in asked.passage_ids
    )
    app.send_task("searchapp.tasks.embed_pending", queue="embed")
    wait_until(lambda: not PendingVector.objects.exists())
    assert Document.objects.get().status == DocumentStatus.READY

    refused = job(list(asked.passage_ids), model="someone/huge-model")
    outcome = socket.collect(socket.submit(refused), refused.deadline)
    assert outcome.status == "unavailable" and "not offered" in outcome.reason

    # Stopped, not gone: it holds its place in the presence list but answers nobody.
    worker.send_signal(signal.SIGSTOP)
    asked = job(list(asked.passage_ids), seconds=1.0)
    outcome = socket.collect(socket.submit(asked), asked.deadline)
    worker.send_signal(signal.SIGCONT)
    assert outcome.status == "late"

    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    outcome = socket.collect(socket.submit(job([1])), time.time() + 5)
    assert outcome.reason == remote.NO_WORKER


def test_a_worker_told_to_stop_finishes_what_it_has(worker: subprocess.Popen[bytes]) -> None:
    ids = passage_ids()
    words = "water the tomato plants each morning before the sun is high and hot " * 8
    document = Document.objects.get()
    many = Passage.objects.bulk_create(
        Passage(
            collection=document.collection,
            document=document,
            ordinal=number,
            text=f"{number} {words}",
            start=0,
            end=1,
        )
        for number in range(2, 102)
    )
    ids += [passage.pk for passage in many]
    socket = remote.reranker()
    # Each another query, so that no score is known from before.
    asked = [
        RerankJob(f"tomatoes {number}", "", ids, [0.5] * len(ids), time.time() + 60)
        for number in range(6)
    ]
    tickets = [socket.submit(each) for each in asked]
    time.sleep(0.2)  # taken, and far from done
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: not presence.alive("gpu"), seconds=20)
    assert socket.submit(job(ids)) == "no-worker"
    outcomes = [
        socket.collect(ticket, each.deadline) for ticket, each in zip(tickets, asked, strict=True)
    ]
    assert [outcome.status for outcome in outcomes] == ["ok"] * 6, outcomes
    assert worker.wait(60) == 0
    assert presence.at_work("gpu") == []


def test_a_worker_that_ends_leaves_what_waits_for_its_vectors_to_the_next(
    worker: subprocess.Popen[bytes],
) -> None:
    """Without a signal, as when Celery gives up: it has lost its broker."""
    collection = Collection.objects.create_with_owner(slug="garden", name="Garden")
    generation = ensure_generation(collection)
    document = Document.objects.create(collection=collection, path="a.txt", title="Tomatoes")
    words = "water the tomato plants each morning before the sun is high and hot " * 15
    passages = Passage.objects.bulk_create(
        Passage(
            collection=collection, document=document, ordinal=n, text=f"{n} {words}", start=0, end=1
        )
        for n in range(5000)
    )
    PendingVector.objects.bulk_create(
        PendingVector(generation=generation, passage=passage) for passage in passages
    )
    app.send_task("searchapp.tasks.embed_pending", queue="embed")
    wait_until(lambda: PendingVector.objects.count() < len(passages))
    app.control.shutdown()
    assert worker.wait(60) == 0
    left = PendingVector.objects.count()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM searchapp_vector WHERE generation_id = %s", [generation.pk]
        )
        assert 0 < left == len(passages) - cursor.fetchone()[0]


def test_a_search_that_comes_again_costs_no_inference(worker: subprocess.Popen[bytes]) -> None:
    asked = job(passage_ids())
    socket = remote.reranker()
    first = socket.collect(socket.submit(asked), asked.deadline)
    # Other priors and one more passage: raw scores are what is kept.
    again = RerankJob(asked.query, "", list(asked.passage_ids), [0.1, 0.9], asked.deadline)
    second = socket.collect(socket.submit(again), again.deadline)
    assert (first.status, first.cached, second.status, second.cached) == ("ok", 0, "ok", 2)
    assert second.inference_ms == 0.0 and second.logits != first.logits
    expected = local.rerank(again)
    assert second.logits == pytest.approx(expected.logits, abs=1e-3)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)
