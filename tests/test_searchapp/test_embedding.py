"""The pump: pending passages get their vectors, whatever stands in the way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from django.db import connection

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
    assert seen[0] == ("passage: T\nWater the tomatoes.", "all-MiniLM-L6-v2")


def test_only_the_collection_asked_for(document: Document) -> None:
    other = Collection.objects.create_with_owner(slug="other", name="Other")
    assert embedding.embed_pending(fake, collection_id=other.pk) == 0
    assert PendingVector.objects.count() == 4


def test_one_pump_at_a_time_and_late_work_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    at_work = threading.Event()
    go_on = threading.Event()

    def slow(**_: Any) -> int:
        calls.append(1)
        at_work.set()
        go_on.wait(5)
        return 1

    monkeypatch.setattr(embedding, "embed_pending", slow)
    first = threading.Thread(target=embedding.pump)
    first.start()
    assert at_work.wait(5)
    started = time.perf_counter()
    assert embedding.pump() == 0, "another thread is at it"
    assert time.perf_counter() - started < 3
    go_on.set()
    first.join(5)
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
