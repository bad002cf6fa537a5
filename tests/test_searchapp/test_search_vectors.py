"""Vectors under real transactions: races, the approximate index, deletion against writing."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, connection, transaction

from searchapp.models import Collection, Document, DocumentText, Generation, Passage, Segment
from searchapp.search import ann, erasing, pipeline, segments, vectors
from searchapp.search.access import operator
from searchapp.search.filters import read_filters
from tests.fakes import FakeEmbedder
from tests.shelves import make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=django_settings.INSTALLED_APPS)
COUNT = 1500


def filled(count: int = COUNT) -> tuple[Collection, np.ndarray]:
    collection = make_collection("filled")
    for kind in ("common", "rare"):
        document = Document.objects.create(
            collection=collection, path=kind, title=kind, metadata={"kind": kind}
        )
        DocumentText.objects.create(document=document, text="")
    common, rare = Document.objects.order_by("pk")
    Passage.objects.bulk_create(
        Passage(
            collection=collection,
            document=rare if at % 50 == 0 else common,
            ordinal=at,
            text="t",
            start=0,
            end=1,
        )
        for at in range(count)
    )
    random = np.random.default_rng(7)
    array = random.normal(size=(count, 384)).astype(np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    ids = list(Passage.objects.order_by("pk").values_list("pk", flat=True))
    vectors.write_vectors(collection.active_generation, ids, array)
    return collection, array


def in_threads(work, count: int) -> list:
    results, problems = [], []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            problems.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems, problems
    return results


def test_eight_first_uploads_at_once_make_one_generation() -> None:
    collection = Collection.objects.create_with_owner(slug="new", name="New")
    made = in_threads(
        lambda: vectors.ensure_generation(Collection.objects.get(pk=collection.pk)).pk, 8
    )
    assert len(set(made)) == 1 and Generation.objects.count() == 1


def index_number(generation: Generation) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::regclass::oid::int", [f"searchapp_vector_g{generation.pk}_hnsw"])
        row = cursor.fetchone()
    assert row
    return int(row[0])


def test_the_approximate_index_is_used_and_near_enough(settings) -> None:
    collection, array = filled()
    generation = collection.active_generation
    settings.EXACT_SCAN_MAX_PASSAGES = 1000
    assert ann.build_missing_ann_indexes() == 1
    generation.refresh_from_db()
    assert generation.has_ann_index and not ann.needs_ann_index(generation)
    assert ann.build_missing_ann_indexes() == 0
    before = index_number(generation)
    # Read before another worker had finished the index; it must not be made again under searches.
    ann.build_ann_index(Generation(pk=generation.pk, dimension=generation.dimension))
    assert index_number(generation) == before
    query, params = vectors._dense_query(
        collection, generation, operator(), array[0], 50, read_filters(None), exact=False
    )
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(b"EXPLAIN " + query.as_bytes(connection.connection), params)
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")
    assert "_hnsw" in plan
    assert ann.ann_recall(generation, sample=5, depth=50) >= 0.9
    rare = read_filters({"metadata": {"kind": ["rare"]}})
    found = vectors.dense_candidates(collection, generation, operator(), array[3], 20, filters=rare)
    assert len(found) == 20
    owned = set(Passage.objects.filter(document__path="rare").values_list("pk", flat=True))
    assert {each for each, _ in found} <= owned


def test_scores_are_cosines_and_rank_as_numpy_ranks_them() -> None:
    collection, array = filled(300)
    ids = list(Passage.objects.order_by("pk").values_list("pk", flat=True))
    found = vectors.dense_candidates(
        collection, collection.active_generation, operator(), array[17], 300
    )
    expected = array.astype(np.float16).astype(np.float64) @ array[17].astype(np.float16)
    assert found[0][0] == ids[17]
    for each, score in found:
        assert score == pytest.approx(expected[ids.index(each)], abs=2e-3)


def test_deleting_while_vectors_are_written_leaves_no_orphan() -> None:
    collection, array = filled(400)
    generation = collection.active_generation
    ids = list(Passage.objects.order_by("pk").values_list("pk", flat=True))
    rare = Document.objects.get(path="rare")
    tasks = iter(
        [
            *[lambda: vectors.write_vectors(generation, ids, array)] * 4,
            lambda: erasing.delete_documents(collection, [rare.pk]),
        ]
    )
    lock = threading.Lock()

    def next_task() -> object:
        with lock:
            task = next(tasks)
        return task()

    in_threads(next_task, 5)
    left = set(Passage.objects.values_list("pk", flat=True))
    found = vectors.dense_candidates(collection, generation, operator(), array[0], 1000)
    assert {each for each, _ in found} == left and len(left) == 392


def test_erasing_and_indexing_at_once_leave_nothing_of_the_collection() -> None:
    collection, _ = filled(100)
    written = threading.Event()

    def index() -> None:
        document = Document.objects.first()
        try:
            with transaction.atomic():
                passage = Passage.objects.create(
                    collection=collection, document=document, ordinal=999, text="x", start=0, end=1
                )
                segments.index_passages(collection, [(passage.pk, "x")])
                written.set()
                time.sleep(0.5)
        except IntegrityError:
            pass  # the collection was gone at the commit

    def erase() -> None:
        written.wait(20)
        erasing.erase_collection(collection)

    work = iter([index, erase])
    in_threads(lambda: next(work)(), 2)
    assert not Collection.objects.exists()
    assert not Passage.objects.exists() and not Segment.objects.exists()


def test_a_search_on_dropped_vectors_goes_on_by_words() -> None:
    collection, _ = filled(10)
    vectors.drop_partitions([collection.active_generation_id])
    result = pipeline.start("t", collection, user=operator(), embedder=FakeEmbedder())
    assert result.legs["dense"].status == "skipped"
    assert "replaced meanwhile" in result.legs["dense"].reason
