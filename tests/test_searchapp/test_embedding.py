"""The pump: pending passages get their vectors, whatever stands in the way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from rerank.errors import ModelNotFound
from rerank.types import FloatArray
from searchapp.engine import local
from searchapp.ingest import embedding, queueing
from searchapp.models import (
    Collection,
    Document,
    DocumentStatus,
    Generation,
    Passage,
    PendingVector,
)
from searchapp.search.vectors import ensure_generation
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db

TEXTS = ["Water the tomatoes.", "POISON", "The violin has four strings.", ""]


@pytest.fixture
def generation() -> Generation:
    collection = Collection.objects.create_with_owner(slug="garden", name="Garden")
    return ensure_generation(collection)


@pytest.fixture
def document(generation: Generation) -> Document:
    document = Document.objects.create(collection=generation.collection, path="a.txt", title="T")
    for ordinal, text in enumerate(TEXTS):
        passage = Passage.objects.create(
            collection=generation.collection,
            document=document,
            ordinal=ordinal,
            text=text,
            start=0,
            end=len(text),
        )
        PendingVector.objects.create(generation=generation, passage=passage)
    return document


def stored(generation: Generation) -> dict[int, FloatArray]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT passage_id, embedding::vector::text FROM searchapp_vector "
            "WHERE generation_id = %s",
            [generation.pk],
        )
        return {pk: np.array(json.loads(text), dtype=np.float32) for pk, text in cursor.fetchall()}


def fake(texts: Sequence[str], model: str) -> FloatArray:
    """Direction by length; text with POISON in it cannot be embedded."""
    if any("POISON" in text for text in texts):
        raise RuntimeError("cannot embed this")
    vectors = np.zeros((len(texts), 384), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row, len(text) % 384] = 1.0
    return vectors


def test_pending_passages_get_the_model_s_vectors_and_the_document_is_ready(
    document: Document, generation: Generation
) -> None:
    assert embedding.embed_pending() == 4
    assert not PendingVector.objects.exists()
    document.refresh_from_db()
    assert document.status == DocumentStatus.READY
    first = Passage.objects.get(ordinal=0)
    expected = local.embed_documents(["T\nWater the tomatoes."], "")[0]
    vectors = stored(generation)
    assert len(vectors) == 4
    assert np.allclose(vectors[first.pk], expected, atol=1e-3)
    assert embedding.embed_pending() == 0


def test_a_passage_that_cannot_be_embedded_does_not_stop_the_rest(
    document: Document, generation: Generation
) -> None:
    assert embedding.embed_pending(fake) == 4
    assert not PendingVector.objects.exists()
    poisoned = Passage.objects.get(text="POISON")
    assert poisoned.pk not in stored(generation) and len(stored(generation)) == 3
    document.refresh_from_db()
    assert document.status == DocumentStatus.READY


def test_a_broken_model_leaves_everything_pending(document: Document) -> None:
    def broken(texts: Sequence[str], model: str) -> FloatArray:
        raise RuntimeError("the device is gone")

    def missing(texts: Sequence[str], model: str) -> FloatArray:
        raise ModelNotFound("There is no such model.")

    for embed, error in [(broken, RuntimeError), (missing, ModelNotFound)]:
        with pytest.raises(error):
            embedding.embed_pending(embed)
        assert PendingVector.objects.count() == 4
    document.refresh_from_db()
    assert document.status == DocumentStatus.INDEXING


def test_vectors_that_are_not_numbers_are_not_written(
    document: Document, generation: Generation
) -> None:
    def with_nan(texts: Sequence[str], model: str) -> FloatArray:
        vectors = np.ones((len(texts), 384), dtype=np.float32)
        vectors[0, 3] = np.nan
        return vectors

    embedding.embed_pending(with_nan)
    assert len(stored(generation)) == 3
    assert not PendingVector.objects.exists()


def test_the_document_prefix_and_model_of_the_generation_are_used(
    document: Document, generation: Generation
) -> None:
    Generation.objects.filter(pk=generation.pk).update(document_prefix="passage: ")
    seen: list[tuple[str, str]] = []

    def embed(texts: Sequence[str], model: str) -> FloatArray:
        seen.extend((text, model) for text in texts)
        return np.ones((len(texts), 384), dtype=np.float32)

    embedding.embed_pending(embed)
    # In whatever order the database gives them.
    assert ("passage: T\nWater the tomatoes.", "all-MiniLM-L6-v2") in seen
    assert len(seen) == 4 and all(text.startswith("passage: ") for text, _ in seen)


def test_only_the_collection_asked_for(document: Document) -> None:
    other = Collection.objects.create_with_owner(slug="other", name="Other")
    assert embedding.embed_pending(fake, collection_id=other.pk) == 0
    assert PendingVector.objects.count() == 4


def waiting(slug: str, count: int) -> Generation:
    """A collection whose passages all wait for their vectors."""
    collection = make_collection(slug)
    add_document(collection, slug, [f"{slug} {number}." for number in range(count)])
    return wait_again(ensure_generation(collection))


def wait_again(generation: Generation) -> Generation:
    PendingVector.objects.bulk_create(
        PendingVector(generation=generation, passage=passage)
        for passage in generation.collection.passages.order_by("id")
    )
    return generation


def about(texts: Sequence[str]) -> list[str]:
    """The slugs of the collections that these texts of `waiting` are from."""
    return [text.split("\n")[0] for text in texts]


def unit_vectors(texts: Sequence[str]) -> FloatArray:
    return np.eye(1, 384, dtype=np.float32).repeat(len(texts), axis=0)


def test_a_few_passages_wait_for_one_batch_of_a_backlog_and_not_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "MOST_BATCH", 16)
    large, small = waiting("large", 200), waiting("small", 10)
    for had_its_turn in (large, small):
        monkeypatch.setattr(embedding, "_turn", embedding._Turn(had_its_turn.pk))
        done: list[str] = []

        def embed(texts: Sequence[str], model: str, done: list[str] = done) -> FloatArray:
            done.extend(about(texts))
            return unit_vectors(texts)

        assert embedding.embed_pending(embed) == 210
        assert done.count("small") == 10 and done.count("large") == 200
        assert set(done[32:]) == {"large"}, "the small one is done within two batches"
        for generation in (large, small):
            wait_again(generation)


def test_a_stream_of_small_ones_does_not_starve_a_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "MOST_BATCH", 16)
    small = [waiting("first", 16), waiting("last", 16)]
    large = waiting("large", 160)
    done: list[str] = []

    def next_batch() -> None:
        embedding.embed_pending(embed, enough=lambda: True)
        for each in small:  # what is done comes again at once
            if not each.pending.exists():
                wait_again(each)

    def embed(texts: Sequence[str], model: str) -> FloatArray:
        done.extend(about(texts))
        return unit_vectors(texts)

    while large.pending.exists():
        next_batch()
        assert len(done) <= 3 * 160 + 32, "a third of the turns is the large one's"
    assert {done.count("first"), done.count("last")} <= set(range(144, 193))


@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_two_workers_share_a_backlog_and_neither_waits_for_what_the_other_has_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "MOST_BATCH", 16)
    large, small = waiting("large", 60), waiting("small", 4)
    holds, go_on = threading.Event(), threading.Event()

    def slow(texts: Sequence[str], model: str) -> FloatArray:
        holds.set()
        assert go_on.wait(20)
        return unit_vectors(texts)

    counts: list[int] = []

    def other_worker() -> None:
        counts.append(embedding.embed_pending(slow, enough=lambda: True))
        connection.close()

    thread = threading.Thread(target=other_worker)
    thread.start()
    assert holds.wait(20)
    here = embedding.embed_pending(lambda texts, model: unit_vectors(texts))
    assert PendingVector.objects.count() == 64 - here == embedding.FIRST_BATCH
    go_on.set()
    thread.join(20)
    assert counts == [embedding.FIRST_BATCH] and not PendingVector.objects.exists()
    assert (len(stored(large)), len(stored(small))) == (60, 4)


def test_whose_turn_it_is_is_read_from_the_index_and_nothing_is_sorted() -> None:
    """Whatever the statistics of the table say: they are older than a new backlog."""
    waiting("large", 40)
    with CaptureQueriesContext(connection) as captured:
        assert len(embedding._claim(None, 8)) == 8
    (claiming,) = [each["sql"] for each in captured if "SKIP LOCKED" in each["sql"]][:1]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {claiming}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "one_pending_vector" in plan and "Sort" not in plan


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_round_is_bounded_and_asks_for_the_next_until_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any, is_asked: bool
) -> None:
    """Even where a mark says that a message waits: another thread may have taken that one."""
    sent: list[str] = []
    monkeypatch.setattr(queueing, "_send", lambda name, args, queue: sent.append(name))
    generation = waiting("large", 100)
    rounds, written = 0, 0
    while PendingVector.objects.exists():
        if is_asked:
            queueing._ask_for_embedding()
        sent.clear()
        with django_capture_on_commit_callbacks(execute=True):
            part = embedding.pump(seconds=0.0)
        assert 0 < part <= embedding.FIRST_BATCH, "a round ends after the batch in hand"
        assert sent == [queueing.EMBED_TASK], "one message for the next"
        rounds, written = rounds + 1, written + part
    assert rounds == 7 and written == 100 == len(stored(generation))
    sent.clear()
    with django_capture_on_commit_callbacks(execute=True):
        assert embedding.pump() == 0
    assert not sent


def test_a_worker_that_is_told_to_stop_ends_after_the_batch_in_hand_and_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(queueing, "_send", lambda name, args, queue: sent.append(name))
    waiting("large", 100)
    with django_capture_on_commit_callbacks(execute=True):
        assert embedding.pump(stopped=lambda: True) == embedding.FIRST_BATCH
    assert PendingVector.objects.count() == 100 - embedding.FIRST_BATCH and not sent


def test_one_pump_at_a_time_and_late_work_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    at_work = threading.Event()
    go_on = threading.Event()

    def slow(**_: Any) -> int:
        calls.append(1)
        at_work.set()
        go_on.wait(30)
        return 1

    monkeypatch.setattr(embedding, "embed_pending", slow)
    first = threading.Thread(target=embedding.pump)
    first.start()
    assert at_work.wait(20)
    started = time.perf_counter()
    assert embedding.pump() == 0, "another thread is at it"
    assert time.perf_counter() - started < 15
    go_on.set()
    first.join(20)
    assert len(calls) == 2, "the first looked once more for what came meanwhile"


@pytest.mark.parametrize(("seconds", "grows"), [(0.04, False), (0.0, True)])
def test_a_batch_is_as_large_as_the_machine_embeds_in_a_moment(
    generation: Generation, seconds: float, grows: bool
) -> None:
    """Who replaces a document waits for the batch that holds it."""
    document = Document.objects.create(collection=generation.collection, path="b.txt", title="T")
    passages = Passage.objects.bulk_create(
        Passage(
            collection=generation.collection,
            document=document,
            ordinal=ordinal,
            text=f"Plant {ordinal}.",
            start=0,
            end=1,
        )
        for ordinal in range(120)
    )
    PendingVector.objects.bulk_create(
        PendingVector(generation=generation, passage=passage) for passage in passages
    )
    sizes: list[int] = []

    def embed(texts: Sequence[str], model: str) -> FloatArray:
        sizes.append(len(texts))
        time.sleep(seconds * len(texts))
        return np.eye(1, generation.dimension, dtype=np.float32).repeat(len(texts), axis=0)

    assert embedding.embed_pending(embed) == 120 == sum(sizes)
    assert sizes[0] == embedding.FIRST_BATCH
    assert (max(sizes) > 2 * embedding.FIRST_BATCH) == grows
    if not grows:
        assert max(sizes[1:]) * seconds <= embedding.BATCH_SECONDS


def test_while_more_passages_come_most_of_the_time_is_theirs(
    generation: Generation, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(embedding.time, "sleep", slept.append)

    def embed(texts: Sequence[str], model: str) -> FloatArray:
        if more:
            queueing._ask_for_embedding()  # somebody has committed a passage
        return np.eye(1, generation.dimension, dtype=np.float32).repeat(len(texts), axis=0)

    monkeypatch.setattr(queueing, "_send", lambda *message: None)
    for more in (False, True):
        PendingVector.objects.bulk_create(
            PendingVector(generation=generation, passage=passage)
            for passage in document.passages.exclude(
                pk__in=PendingVector.objects.values("passage_id")
            )
        )
        assert embedding.embed_pending(embed, give_way=embedding._give_way) == len(TEXTS)
        assert len(slept) == int(more)
    assert 0 < slept[0] <= embedding.LONGEST_WAY
