"""Calibrating a collection by its judged queries, and searches that use what was fitted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from rerank.ranking.calibration import Beta, Platt, to_json
from rerank.ranking.calibration_file import load_model_calibration
from rerank.ranking.confidence import Confidence
from searchapp import tasks
from searchapp.engine import local
from searchapp.engine.sockets import RerankOutcome
from searchapp.models import (
    Calibration,
    CalibrationState,
    Checkpoint,
    Collection,
    Judgment,
    Passage,
    TrainingJob,
    TrainingState,
)
from searchapp.models.judgments import SILENT, Source, query_key
from searchapp.search import calibrated, pipeline, traces
from searchapp.search.erasing import delete_documents, erase_collection
from searchapp.search.result import SearchResult
from searchapp.workbench import calibrating, judging
from tests.fakes import FakeEmbedder, FakeReranker
from tests.shelves import add_document, make_collection

QUERIES = [f"heron of pond {number}" for number in range(55)]


@dataclass
class NoisyReranker(FakeReranker):
    """Logits of known meaning: a document is relevant with probability sigmoid(logit - 1)."""

    calls: list[str] = field(default_factory=list)

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        outcome = super().collect(ticket, deadline)
        job = self.submitted[-1]
        self.calls.append(job.query)
        rows = Passage.objects.filter(pk__in=job.passage_ids)
        titles = dict(rows.values_list("pk", "document__title"))
        logits = [_made(job.query, titles[passage])[0] for passage in job.passage_ids]
        relevance = [1 / (1 + math.exp(-each)) for each in logits]
        return replace(outcome, logits=logits, relevance=relevance, model="noisy")


def is_relevant(query: str, title: str) -> bool:
    logit, chance = _made(query, title)
    return chance < 1 / (1 + math.exp(1 - logit))


def _made(query: str, title: str) -> tuple[float, float]:
    """A logit of this pair and a number in [0, 1], the same at every call."""
    random = np.random.default_rng([int(title.split()[-1]), int(query.split()[-1])])
    return float(random.normal(0, 2)), float(random.random())


@pytest.fixture
def pond(db: None) -> Iterator[Collection]:
    collection = make_collection("pond")
    for number in range(12):
        add_document(collection, f"Heron {number}", [f"heron pond {'marsh ' * number}"])
    yield collection
    calibrated._read.cache_clear()


def judge_all(collection: Collection, queries: list[str]) -> None:
    Judgment.objects.bulk_create(
        Judgment(
            collection=collection,
            query=query,
            query_key=query_key(query),
            path=document.path,
            grade=2 * is_relevant(query, document.title),
            source=Source.IMPORT,
        )
        for query in queries
        for document in collection.documents.all()
    )


def calibrate(collection: Collection, **options: Any) -> Calibration:
    row = calibrating.request_calibration(collection, None, **options)
    assert isinstance(row, Calibration), row
    calibrating.run(row.pk, embedder=FakeEmbedder(), reranker=NoisyReranker())
    row.refresh_from_db()
    return row


def search(collection: Collection, query: str = "heron of pond 99", **options: Any) -> SearchResult:
    return pipeline.search(
        query,
        collection,
        user=None,
        embedder=FakeEmbedder(),
        reranker=options.pop("reranker", None) or NoisyReranker(),
        **options,
    )


def serve(collection: Collection, map: Platt | Beta, model: str = "noisy", **fields: Any) -> None:
    Calibration.objects.create(
        collection=collection,
        config=collection.active_config,
        model=model,
        parameters=json.loads(to_json(map)),
        state=CalibrationState.READY,
        **fields,
    )


# --- fitting -----------------------------------------------------------------------------------


def test_judged_queries_become_a_calibration_that_finds_the_known_curve(pond: Collection) -> None:
    judge_all(pond, QUERIES)
    row = calibrate(pond)
    assert (row.state, row.message, row.model) == ("ready", "", "noisy")
    assert row.report["queries"] == 55
    assert row.report["pairs"] == 55 * 12
    # Without the shift by one, relevance says too much; held-out calibrated numbers do not.
    assert row.report["before"]["ece"]["value"] > 0.1
    after = row.report["after"]["ece"]
    assert after["low"] <= after["value"] < 0.06
    assert sum(each["count"] for each in row.report["after"]["bins"]) == 55 * 12
    result = search(pond)
    for hit in result.hits:
        assert hit.calibrated == pytest.approx(1 / (1 + math.exp(1 - hit.logit)), abs=0.1)
    assert row.report["searches"] == 55
    assert (result.confidence is not None) == row.report["confidence"]["beats_chance"]


def test_queries_that_a_checkpoint_was_trained_on_do_not_count(pond: Collection) -> None:
    judge_all(pond, QUERIES)
    job = TrainingJob.objects.create(
        collection=pond, config=pond.active_config, state=TrainingState.DONE
    )
    checkpoint = Checkpoint.objects.create(
        collection=pond, job=job, trained_on=[query_key(query) for query in QUERIES[:4]]
    )
    pond.configs.update(model=checkpoint.model_name)
    pond = Collection.objects.get(pk=pond.pk)
    row = calibrate(pond)
    assert (row.state, row.report["queries"]) == ("ready", 51)
    checkpoint.trained_on = [query_key(query) for query in QUERIES[:20]]
    checkpoint.save()
    told = calibrating.request_calibration(pond, None)
    assert told == (
        f"Checkpoint {checkpoint.pk} was trained on 20 of the 55 judged queries, where its scores "
        "are too good. A calibration needs 50 others; there are 35."
    )


def test_the_best_passage_stands_for_a_judged_document(pond: Collection) -> None:
    add_document(pond, "Long 77", [f"heron pond part {part}" for part in range(3)])
    judge_all(pond, QUERIES[:50])
    assert calibrate(pond).report["pairs"] == 50 * 13


@dataclass
class UnboundedReranker(NoisyReranker):
    """Its relevance is no share of one, as that of some endpoints."""

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        outcome = super().collect(ticket, deadline)
        return replace(outcome, relevance=[10 * each for each in outcome.logits])


def test_a_relevance_beyond_one_is_calibrated_by_its_logit(pond: Collection) -> None:
    judge_all(pond, QUERIES[:50])
    row = calibrating.request_calibration(pond, None)
    assert isinstance(row, Calibration)
    assert calibrating.run(row.pk, embedder=FakeEmbedder(), reranker=UnboundedReranker()) == "ready"
    row.refresh_from_db()
    assert "beta" not in row.report["losses"]
    hits = search(pond, reranker=UnboundedReranker()).hits
    assert all(hit.calibrated is not None and 0 <= hit.calibrated <= 1 for hit in hits)


def test_unjudged_candidates_are_left_out_or_counted_as_not_relevant(pond: Collection) -> None:
    judge_all(pond, QUERIES)
    Judgment.objects.filter(grade=0).delete()
    row = calibrate(pond)
    assert row.state == "failed"
    assert "Every judged document that was found is relevant" in row.message
    row = calibrate(pond, unjudged_count=True)
    assert row.state == "ready"
    assert row.report["pairs"] == 12 * Judgment.objects.filter(collection=pond).query_count()


def test_fewer_than_fifty_judged_queries_are_told_and_change_nothing(pond: Collection) -> None:
    judge_all(pond, QUERIES[:49])
    said = calibrating.request_calibration(pond, None)
    assert said == "A calibration needs 50 judged queries; there are 49."
    with pytest.raises(CommandError, match="there are 49"):
        call_command("calibrate", "pond")
    assert not Calibration.objects.exists()


def test_what_stops_a_calibration_is_a_sentence_in_its_row(
    pond: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "_PAUSE_SECONDS", 0.0)
    judge_all(pond, QUERIES)
    cases = [
        (
            FakeReranker("unavailable", "No rerank worker is running."),
            "was not reranked: No rerank",
        ),
        (FakeReranker(scale="rank"), "gives ranks, not scores"),
        (None, "failed (AttributeError)"),
    ]
    for reranker, sentence in cases:
        row = calibrating.request_calibration(pond, None)
        assert isinstance(row, Calibration)
        broken: Any = reranker or object()
        assert calibrating.run(row.pk, embedder=FakeEmbedder(), reranker=broken) == "failed"
        row.refresh_from_db()
        assert sentence in row.message
    row = calibrating.request_calibration(pond, None)
    assert isinstance(row, Calibration)
    calibrating.run(row.pk, embedder=FakeEmbedder("No vectors."), reranker=NoisyReranker())
    row.refresh_from_db()
    assert "had no vector: No vectors." in row.message
    row = calibrating.request_calibration(pond, None)
    assert isinstance(row, Calibration)
    reranker = NoisyReranker()
    stopped = iter([False, False, True])
    calibrating.run(
        row.pk, embedder=FakeEmbedder(), reranker=reranker, stopped=lambda: next(stopped)
    )
    row.refresh_from_db()
    assert "worker was stopped" in row.message
    assert len(reranker.calls) == 2


@dataclass
class BusyReranker(NoisyReranker):
    """Overloaded at every second call."""

    asked: int = 0

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        self.asked += 1
        if self.asked % 2:
            return RerankOutcome("unavailable", "Too much is waiting.", code="overloaded")
        return super().collect(ticket, deadline)


def test_a_busy_reranker_is_asked_again(pond: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "_PAUSE_SECONDS", 0.0)
    judge_all(pond, QUERIES[:50])
    row = calibrating.request_calibration(pond, None)
    assert isinstance(row, Calibration)
    assert calibrating.run(row.pk, embedder=FakeEmbedder(), reranker=BusyReranker()) == "ready"


def test_one_calibration_at_a_time_and_each_runs_once(pond: Collection) -> None:
    judge_all(pond, QUERIES)
    first = calibrating.request_calibration(pond, None)
    assert isinstance(first, Calibration)
    assert "under way" in str(calibrating.request_calibration(pond, None))
    silent = first.updated_at - 2 * SILENT
    Calibration.objects.filter(pk=first.pk).update(updated_at=silent)
    assert isinstance(calibrating.request_calibration(pond, None), Calibration)
    Calibration.objects.filter(pk=first.pk).update(state="running")
    assert tasks.calibrate(first.pk) == "gone"
    assert tasks.calibrate(first.pk + 1000) == "gone"


def test_the_command_prints_before_and_after_and_writes_beside_a_model(
    pond: Collection,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge_all(pond, QUERIES)
    monkeypatch.setattr(local, "reranker", NoisyReranker)
    monkeypatch.setattr(local, "embedder", FakeEmbedder)
    monkeypatch.setattr(local, "warm_up_embedder", lambda: None)
    call_command("calibrate", "pond", "--write", str(tmp_path))
    said = capsys.readouterr().out
    assert "660 pairs of 55 judged queries" in said
    assert "calibrated, held out" in said
    beside = load_model_calibration(tmp_path)
    assert beside is not None
    assert beside.note == "660 pairs of 55 queries in Pond."
    call_command("calibrate", "pond", "--unjudged", "irrelevant", "--json")
    assert json.loads(capsys.readouterr().out)["model"] == "noisy"
    with pytest.raises(CommandError, match="no folder"):
        call_command("calibrate", "pond", "--write", str(tmp_path / "missing"))
    with pytest.raises(CommandError, match="no collection"):
        call_command("calibrate", "sea")


# --- use ---------------------------------------------------------------------------------------


def test_a_search_without_a_calibration_has_no_calibrated_number(pond: Collection) -> None:
    result = search(pond)
    assert {hit.calibrated for hit in result.hits} == {None}
    assert result.confidence is None
    assert not result.is_calibrated
    assert result.hits[0].relevance_shown == result.hits[0].relevance


def test_only_the_model_that_was_calibrated_is(pond: Collection) -> None:
    serve(pond, Platt(1.0, 0.0), model="another")
    assert not search(pond).is_calibrated
    other = make_collection("sea")
    serve(other, Platt(1.0, 0.0))
    assert not search(pond).is_calibrated
    serve(pond, Platt(1.0, 0.0))
    assert search(pond).is_calibrated


def test_the_newest_calibration_serves_and_a_failed_one_does_not(pond: Collection) -> None:
    serve(pond, Platt(1.0, 0.0))
    serve(pond, Platt(0.5, -1.0))
    Calibration.objects.create(
        collection=pond, config=pond.active_config, model="noisy", state=CalibrationState.FAILED
    )
    hit = search(pond).hits[0]
    assert hit.logit is not None
    assert hit.calibrated == pytest.approx(1 / (1 + math.exp(1 - hit.logit / 2)))


def test_a_constant_map_is_not_shown_as_a_number_of_each_hit(pond: Collection) -> None:
    serve(pond, Platt(0.0, -1.0))
    assert not search(pond).is_calibrated


def test_beta_reads_the_relevance(pond: Collection) -> None:
    serve(pond, Beta(1.0, 1.0, 0.0))
    for hit in search(pond).hits:
        assert hit.calibrated == pytest.approx(hit.relevance, abs=1e-6)


def test_the_threshold_acts_on_the_calibrated_number(pond: Collection) -> None:
    config = pond.active_config
    assert config is not None
    config.threshold = 0.5
    plain = search(pond, config=config)
    serve(pond, Platt(1.0, -1.0))
    strict = search(pond, config=config)
    for result, least in ((plain, 0.0), (strict, 1.0)):
        for hit in result.hits:
            assert bool(hit.filtered_out) == (hit.logit < least)
    assert 0 < len(strict.shown) < len(plain.shown)


def test_calibrating_never_changes_the_order(pond: Collection) -> None:
    before = [hit.passage_id for hit in search(pond).hits]
    serve(pond, Platt(0.1, 2.0))
    assert [hit.passage_id for hit in search(pond).hits] == before


def test_confidence_comes_with_the_search_and_survives_its_trace(
    pond: Collection, django_assert_num_queries: Any
) -> None:
    sure = Confidence((1.0, 0.0, 0.0, 0.0), 0.0, (0.0,) * 4, (1.0,) * 4, 1.0)
    serve(pond, Platt(1.0, 0.0), confidence=sure.as_json())
    result = search(pond)
    best = max(hit.logit for hit in result.hits if hit.logit is not None)
    assert result.confidence == pytest.approx(1 / (1 + math.exp(-best)))
    assert SearchResult.from_json(json.loads(json.dumps(result.as_json()))) == replace(
        result, rerank=SearchResult.from_json(result.as_json()).rerank
    )
    with django_assert_num_queries(1):
        calibrated.fitted_for(pond.pk, "noisy")


def test_a_search_finished_later_is_calibrated_too(pond: Collection) -> None:
    serve(pond, Platt(1.0, 0.0))
    reranker = NoisyReranker()
    started = pipeline.start(
        "heron of pond 3", pond, user=None, embedder=FakeEmbedder(), reranker=reranker
    )
    trace = traces.record(started, None)
    result = traces.collect(trace, reranker)
    assert result.is_calibrated
    assert result == SearchResult.from_json(trace.result)


def test_traces_of_the_old_shape_still_load(pond: Collection) -> None:
    data = search(pond).as_json()
    del data["confidence"]
    for hit in data["hits"]:
        del hit["calibrated"]
    old = SearchResult.from_json(data)
    assert old.confidence is None
    assert not old.is_calibrated


def test_the_search_command_prints_both_numbers(
    pond: Collection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchapp.management.commands import search as command

    monkeypatch.setattr(command, "embedder_for", lambda _: FakeEmbedder())
    monkeypatch.setattr(command, "reranker_for", lambda _: NoisyReranker())
    sure = Confidence((1.0, 0.0, 0.0, 0.0), 0.0, (0.0,) * 4, (1.0,) * 4, 1.0)
    call_command("search", "heron of pond 1", "--collection", "pond")
    assert "calibrated" not in capsys.readouterr().out
    serve(pond, Platt(1.0, 0.0), confidence=sure.as_json())
    call_command("search", "heron of pond 1", "--collection", "pond")
    said = capsys.readouterr().out
    assert "calibrated" in said
    assert "confidence 0." in said
    call_command("search", "heron of pond 1", "--collection", "pond", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert 0 <= answer["hits"][0]["calibrated"] <= 1
    assert 0 <= answer["confidence"] <= 1


def test_a_collection_goes_with_its_judgments_and_calibrations(pond: Collection) -> None:
    judge_all(pond, QUERIES[:1])
    serve(pond, Platt(1.0, 0.0))
    traces.record(search(pond), None)
    erase_collection(pond)
    assert not Judgment.objects.exists()
    assert not Calibration.objects.exists()


def test_a_document_uploaded_again_keeps_its_judgments(pond: Collection) -> None:
    judge_all(pond, QUERIES[:1])
    document = pond.documents.get(title="Heron 3")
    delete_documents(pond, [document.pk])
    add_document(pond, "Heron 3", ["heron pond, second edition"])
    (judged,) = judging.judged_queries(pond)
    assert "Heron 3.txt" in judged.grades
