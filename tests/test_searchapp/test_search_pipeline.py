"""The pipeline from query to hits, its traces and its explanations."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from searchapp.engine.sockets import RerankOutcome
from searchapp.models import Collection, Document, DocumentText, Passage, SearchConfig, Trace
from searchapp.search import ann, erasing, explain, pipeline, segments, traces, vectors
from searchapp.search.filters import BadFilter, read_filters
from searchapp.search.result import SearchResult
from tests.fakes import FakeEmbedder, FakeReranker, hashed_vector
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db
NOBODY = AnonymousUser()


@pytest.fixture
def trees() -> Collection:
    collection = make_collection("trees")
    add_document(
        collection,
        "Oak",
        ["The oak bears acorns in autumn.", "Oak timber builds ships."],
        metadata={"kind": "broadleaf", "lands": ["England", "France"], "language": "en"},
    )
    add_document(
        collection,
        "Pine",
        ["A pine keeps its needles all winter.", "Squirrels eat pine seeds and acorns."],
        metadata={"kind": "conifer", "lands": ["Norway"]},
        media_type="text/markdown",
    )
    return collection


def titles(result: SearchResult) -> list[str]:
    names = dict(Document.objects.values_list("pk", "title"))
    return [names[hit.document_id] for hit in result.shown]


def search(collection: Collection, query: str = "oak acorns", **options) -> SearchResult:
    sockets = {"embedder": FakeEmbedder(), "reranker": FakeReranker()}
    return pipeline.search(query, collection, user=NOBODY, **(sockets | options))


def test_both_legs_find_and_the_rerank_turns_the_order_round(trees) -> None:
    result = search(trees)
    assert {name: leg.status for name, leg in result.legs.items()} == {
        "lexical": "ok",
        "dense": "ok",
    }
    assert [hit.rank for hit in result.hits] == [1, 2, 3, 4]
    assert [hit.first_stage_rank for hit in result.hits] == [4, 3, 2, 1]
    assert result.rerank.status == "ok" and result.rerank.pairs == 4
    first = result.first_stage_order()[0]
    assert (first.lexical_rank, first.dense_rank) == (1, 1)
    assert first.fused_score == pytest.approx(1.0)
    assert {"lexical", "embed", "dense", "fusion", "first_stage", "rerank", "total"} <= set(
        result.timings_ms
    )
    assert SearchResult.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_a_rerank_stops_at_the_depth_and_the_rest_follow_in_first_stage_order(trees) -> None:
    SearchConfig.objects.filter(collection=trees).update(rerank_depth=2)
    trees.refresh_from_db()
    result = search(trees)
    assert [hit.first_stage_rank for hit in result.hits] == [2, 1, 3, 4]
    assert [hit.relevance is None for hit in result.hits] == [False, False, True, True]


def test_equal_logits_keep_first_stage_order(trees) -> None:
    started = pipeline.start(
        "oak acorns", trees, user=NOBODY, embedder=FakeEmbedder(), reranker=FakeReranker()
    )
    assert started.rerank.status == "pending" and started.ticket
    tied = RerankOutcome("ok", logits=[1.0] * 4, relevance=[0.7] * 4)
    assert [hit.first_stage_rank for hit in pipeline.finish(started, tied).hits] == [1, 2, 3, 4]


@pytest.mark.parametrize("status", ["late", "unavailable"])
def test_a_failing_rerank_leaves_the_fused_order_and_says_so(trees, status) -> None:
    result = search(trees, reranker=FakeReranker(status=status, reason="No rerank worker."))
    assert [hit.rank for hit in result.hits] == [hit.first_stage_rank for hit in result.hits]
    assert (result.rerank.status, result.rerank.reason) == (status, "No rerank worker.")
    assert result.moved == 0


def test_an_answer_of_the_wrong_length_is_no_answer(trees) -> None:
    started = pipeline.start("oak", trees, user=NOBODY, reranker=FakeReranker())
    odd = RerankOutcome("ok", logits=[1.0] * 9, relevance=[0.5] * 9)
    assert pipeline.finish(started, odd).rerank.status == "unavailable"


def test_a_threshold_filters_out_and_zero_is_a_threshold_too(trees) -> None:
    configs = SearchConfig.objects.filter(collection=trees)
    configs.update(threshold=0.5)
    trees.refresh_from_db()
    result = search(trees)
    assert len(result.shown) == 2
    assert result.hits[3].filtered_out == "below the threshold 0.5"
    configs.update(threshold=0.0, rerank_depth=3)
    trees.refresh_from_db()
    result = search(trees)
    assert len(result.shown) == 3 and "not reranked" in result.hits[3].filtered_out
    # Without a rerank nothing can be held against the threshold.
    assert len(search(trees, reranker=FakeReranker(status="late")).shown) == 4


def test_a_leg_that_cannot_run_is_skipped_with_a_sentence(trees) -> None:
    result = search(trees, embedder=FakeEmbedder(reason="No embed worker is running."))
    assert result.legs["dense"].status == "skipped"
    assert result.legs["dense"].reason == "No embed worker is running."
    assert len(result.hits) == 3  # the pine that names neither word is found by meaning only
    only_signs = search(trees, "?!")
    assert only_signs.legs["lexical"].status == "skipped"
    assert only_signs.hits and all(hit.lexical_rank is None for hit in only_signs.hits)


def test_no_hits_are_a_result_not_an_error(trees) -> None:
    result = search(trees, "zebra", embedder=None)
    assert result.hits == () and result.legs["lexical"].status == "empty"
    assert result.rerank.status == "off"


def test_queries_that_cannot_be_searched_are_refused_in_words(trees) -> None:
    for query, words in [("", "Type a query"), ("  ", "Type a query"), ("x" * 4001, "4,001")]:
        with pytest.raises(pipeline.BadQuery, match=words):
            search(trees, query)
    assert search(trees, " ".join(["oak"] * 300)).hits


def test_the_instruction_travels_and_an_override_never_changes_the_collection(trees) -> None:
    reranker = FakeReranker()
    config = trees.active_config
    SearchConfig.objects.filter(pk=config.pk).update(instruction="Prefer ships.")
    trees.refresh_from_db()
    search(trees, reranker=reranker)
    search(trees, reranker=reranker, instruction="Prefer food.")
    search(trees, reranker=reranker, instruction="")
    assert [job.instruction for job in reranker.submitted] == [
        "Prefer ships.",
        "Prefer food.",
        "",
    ]
    config.refresh_from_db()
    assert config.instruction == "Prefer ships."


def test_reciprocal_ranks_and_single_legs_by_config(trees) -> None:
    configs = SearchConfig.objects.filter(collection=trees)
    configs.update(fusion="rrf")
    trees.refresh_from_db()
    assert search(trees).first_stage_order()[0].fused_score == pytest.approx(1.0)
    configs.update(dense_depth=0)
    trees.refresh_from_db()
    result = search(trees)
    assert result.legs["dense"].status == "skipped" and len(result.hits) == 3
    configs.update(dense_depth=10, lexical_depth=0, bm25_variant="okapi")
    trees.refresh_from_db()
    assert len(search(trees).hits) == 4


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"metadata": {"kind": ["conifer"]}}, {"Pine"}),
        ({"metadata": {"kind": ["conifer", "broadleaf"]}}, {"Pine", "Oak"}),
        ({"metadata": {"lands": ["France"]}}, {"Oak"}),
        ({"metadata": {"lands": "Norway", "kind": "broadleaf"}}, set()),
        ({"media_type": ["text/markdown"]}, {"Pine"}),
        ({"language": ["en"]}, {"Oak"}),
        ({}, {"Pine", "Oak"}),
    ],
)
def test_filters_hold_in_both_legs(trees, filters, expected) -> None:
    assert set(titles(search(trees, filters=filters))) == expected
    assert set(titles(search(trees, filters=filters, embedder=None))) <= expected
    form = read_filters(filters).as_json()
    assert read_filters(form).as_json() == form


def test_a_filter_finds_what_lies_beyond_the_depth() -> None:
    collection = make_collection("many")
    for number in range(30):
        add_document(collection, f"oak {number}", ["oak oak oak"], metadata={"n": str(number)})
    SearchConfig.objects.filter(collection=collection).update(lexical_depth=2, dense_depth=2)
    collection.refresh_from_db()
    assert titles(search(collection, "oak", filters={"metadata": {"n": ["29"]}})) == ["oak 29"]


@pytest.mark.parametrize(
    "form",
    [
        {"colour": ["red"]},
        {"metadata": ["x"]},
        {"media_type": [{"a": 1}]},
        {"metadata": {"a": 3.5j}},
    ],
)
def test_filters_that_say_nothing_are_refused(form) -> None:
    with pytest.raises(BadFilter):
        read_filters(form)


def test_a_search_takes_a_constant_number_of_statements(trees) -> None:
    search(trees)
    with CaptureQueriesContext(
        connection,
    ) as few:
        search(trees)
    for number in range(20):
        add_document(trees, f"More oak {number}", ["acorns of the oak", "oak", "acorns"])
    with CaptureQueriesContext(connection) as many:
        search(trees)
    assert len(many) == len(few) <= 4


# --- traces ------------------------------------------------------------------------------------


def test_a_trace_is_completed_once_and_freezes_its_config(trees) -> None:
    SearchConfig.objects.filter(collection=trees).update(frozen_at=None)
    trees.refresh_from_db()
    reranker = FakeReranker()
    result = pipeline.start(
        "oak acorns", trees, user=NOBODY, embedder=FakeEmbedder(), reranker=reranker
    )
    trace = traces.record(result, NOBODY)
    trace.config.refresh_from_db()
    assert trace.config.frozen_at is not None and trace.rerank_status == "pending"
    finished = traces.complete(trace, reranker.collect(result.ticket, time.time() + 1))
    assert finished.rerank.status == "ok"
    again = traces.complete(trace, RerankOutcome("late", "too late"))
    assert again == finished
    assert traces.collect(trace, reranker) == finished
    assert SearchResult.from_json(traces.load(trace.uid, NOBODY).result) == finished


def test_a_collected_trace_has_the_reranked_order(trees) -> None:
    reranker = FakeReranker()
    result = pipeline.start("oak acorns", trees, user=NOBODY, reranker=reranker)
    trace = traces.record(result, NOBODY, instruction="Prefer ships.")
    finished = traces.collect(trace, reranker)
    assert finished.rerank.status == "ok" and finished.hits[0].first_stage_rank > 1
    assert Trace.objects.get(pk=trace.pk).instruction == "Prefer ships."


def test_an_answer_that_another_request_lost_ends_as_late(trees, settings) -> None:
    settings.RERANK_DEADLINE_MS = 1
    reranker = FakeReranker()
    result = pipeline.start("oak", trees, user=NOBODY, reranker=reranker)
    trace = traces.record(result, NOBODY)
    Trace.objects.update(rerank_status=traces.COLLECTING)
    assert traces.collect(trace, reranker).rerank.status == "late"


# --- explanations ------------------------------------------------------------------------------


def explained(trees: Collection, title: str, query: str = "oak", **options) -> explain.Explanation:
    result = search(trees, query, **options)
    trace = traces.record(result, NOBODY)
    document = Document.objects.get(title=title)
    return explain.explain_missing(trace, document, FakeEmbedder())


def test_old_searches_are_forgotten_and_young_ones_kept(trees, settings) -> None:
    old = [traces.record(search(trees), NOBODY) for _ in range(3)]
    young = traces.record(search(trees), NOBODY)
    ages = Trace.objects.filter(pk__in=[each.pk for each in old])
    ages.update(created_at=timezone.now() - timedelta(days=91))
    settings.TRACE_DAYS = 0
    assert traces.forget_old() == 0
    settings.TRACE_DAYS = 90
    assert traces.forget_old() == 3
    assert list(Trace.objects.all()) == [young]


def test_a_present_document_is_said_to_be_there(trees) -> None:
    found = explained(trees, "Oak")
    assert found.kind == "present" and "rank" in found.reason


def test_a_document_without_the_words_and_beyond_the_dense_depth(trees) -> None:
    SearchConfig.objects.filter(collection=trees).update(dense_depth=1)
    trees.refresh_from_db()
    found = explained(trees, "Pine", "oak timber ships")
    assert found.kind == "not found"
    assert "Words: it holds none of the words of the query." in found.details
    assert any("Meaning: its best passage is at rank 3" in detail for detail in found.details)


def test_a_document_beyond_the_lexical_depth_names_the_words_it_lacks(trees) -> None:
    SearchConfig.objects.filter(collection=trees).update(lexical_depth=1, dense_depth=0)
    trees.refresh_from_db()
    found = explained(trees, "Pine", "Oak, acorns")
    assert any("rank 3 by words" in each and "“Oak”" in each for each in found.details), found


def test_a_document_left_out_by_filter_threshold_or_time(trees) -> None:
    assert (
        explained(trees, "Pine", filters={"metadata": {"kind": ["broadleaf"]}}).kind == "filtered"
    )
    result = search(trees, "zebra", embedder=None)
    trace = traces.record(result, NOBODY)
    late = add_document(trees, "Late", ["zebra"])
    assert explain.explain_missing(trace, late).kind == "newer"
    elsewhere = add_document(make_collection("other"), "Elsewhere", ["oak"])
    assert explain.explain_missing(trace, elsewhere).kind == "other collection"
    SearchConfig.objects.filter(collection=trees).update(threshold=0.99)
    trees.refresh_from_db()
    found = explained(trees, "Oak", embedder=None)
    assert found.kind == "below threshold" and "0.99" in found.reason


# --- deleting ----------------------------------------------------------------------------------


def test_deleted_documents_leave_nothing_behind(trees) -> None:
    oak = Document.objects.get(title="Oak")
    foreign = make_collection("other")
    assert erasing.delete_documents(foreign, [oak.pk]) == 0
    assert erasing.delete_documents(trees, [oak.pk]) == 1
    assert set(titles(search(trees, "oak acorns"))) == {"Pine"}
    assert vectors.vector_count(trees.active_generation) == 2
    assert not DocumentText.objects.filter(document_id=oak.pk).exists()


def test_an_erased_collection_takes_its_partition_along(trees) -> None:
    other = make_collection("other")
    add_document(other, "Oak elsewhere", ["oak"])
    generation = trees.active_generation.pk
    search(trees)
    traces.record(search(trees), NOBODY)
    erasing.erase_collection(trees)
    assert not Collection.objects.filter(slug="trees").exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [f"searchapp_vector_g{generation}"])
        assert cursor.fetchone() == (None,)
    assert Passage.objects.count() == 1 and Trace.objects.count() == 0
    assert titles(search(other, "oak")) == ["Oak elsewhere"]


# --- commands ----------------------------------------------------------------------------------


def test_check_index_agrees_and_notices_what_is_wrong(trees) -> None:
    out = StringIO()
    call_command("check_index", "trees", stdout=out)
    assert "agrees with rank_bm25" in out.getvalue()
    segments.delete_passages(trees, [Passage.objects.first().pk])
    with pytest.raises(Exception, match="does not agree"):
        call_command("check_index", "trees", stdout=out)


def test_the_search_command_prints_the_promised_json() -> None:
    """With the real built-in models in this process: no worker is alive in the tests."""
    from searchapp.engine import local

    collection = make_collection("real")
    passages = ["The oak bears acorns in autumn.", "Ships cross the sea.", "Tax is due in April."]
    document = add_document(collection, "Mixed", passages)
    rows = list(document.passages.order_by("ordinal"))
    vectors.write_vectors(
        collection.active_generation,
        [row.pk for row in rows],
        local.embed_documents([row.indexed_text for row in rows], ""),
    )
    out = StringIO()
    call_command("search", "boats on the ocean", "--collection", "real", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert found["rerank"]["status"] == "ok"
    assert found["hits"][0]["passage"]["text"] == "Ships cross the sea."
    assert set(found["hits"][0]) >= {
        "rank", "first_stage_rank", "lexical_rank", "dense_rank", "logit", "relevance",
        "document", "passage",
    }  # fmt: skip
    assert found["timings_ms"]["first_stage"] > 0
    out = StringIO()
    arguments = ["boats", "--collection", "real", "--no-rerank", "--limit", "1"]
    call_command("search", *arguments, stdout=out, no_color=True)
    assert "rerank off: Reranking is off." in out.getvalue()


def test_the_search_command_keeps_to_the_rights_of_its_user() -> None:
    make_collection("closed", is_public=False)
    get_user_model().objects.create_user("ann")
    with pytest.raises(Exception, match="no collection 'closed'"):
        call_command("search", "x", "--collection", "closed", "--user", "ann")


def test_vectors_of_passages_deleted_meanwhile_are_left_out(trees) -> None:
    generation = trees.active_generation
    ids = list(Passage.objects.filter(collection=trees).values_list("pk", flat=True))
    written = vectors.write_vectors(
        generation, [*ids, 10**9], [hashed_vector("pine")] * (len(ids) + 1)
    )
    assert written == len(ids) == vectors.vector_count(generation)
    found = vectors.dense_candidates(trees, generation, NOBODY, hashed_vector("pine"), 3)
    assert [each for each, _ in found] == sorted(ids)[:3]  # all equal: ties fall to the id
    assert found[0][1] == pytest.approx(1.0, abs=2e-3)
    with pytest.raises(ValueError, match="shape"):
        vectors.write_vectors(generation, ids, [hashed_vector("x")])


def test_a_generation_is_built_beside_the_old_one_and_switched(trees) -> None:
    old = trees.active_generation
    new = vectors.start_generation(trees, "")
    assert vectors.ensure_generation(trees).pk == old.pk
    assert search(trees).legs["dense"].count == 4
    vectors.activate_generation(new)
    trees.refresh_from_db()
    assert search(trees).legs["dense"].status == "empty"
    with pytest.raises(ValueError, match="active generation"):
        vectors.drop_generation(new)
    old.refresh_from_db()
    assert old.state == "retired"
    vectors.drop_generation(old)
    assert not ann.needs_ann_index(new)
