"""The table before and after a training, on runs small enough to work by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import log2
from pathlib import Path

import pytest

from rerank.errors import BadStage
from rerank.evaluation.evaluate import Settings
from rerank.zelo.candidates import Choice, make_candidates, query_texts
from rerank.zelo.evaluation_stage import evaluate_models, evaluation_table
from rerank.zelo.records import Candidates, read_candidates, read_stage
from rerank.zelo.second_pass import Score

BM25 = Settings("bm25", depth=3)
TEXTS = {
    "d1": "apples apples apples",
    "d2": "apples and pears",
    "d3": "apples and many other things",
    "d4": "stones",
}


def folder(path: Path, queries: dict[str, str], qrels: Sequence[tuple[str, str, int]]) -> Path:
    (path / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": name, "text": text}) for name, text in TEXTS.items()]
    (path / "corpus.jsonl").write_text("\n".join(rows))
    rows = [json.dumps({"_id": name, "text": text}) for name, text in queries.items()]
    (path / "queries.jsonl").write_text("\n".join(rows))
    lines = [f"{query}\t{document}\t{grade}" for query, document, grade in qrels]
    (path / "qrels" / "test.tsv").write_text("\n".join(lines))
    return path


def candidates_of(found: Path, output: Path, choice: Choice | None = None) -> Path:
    make_candidates(found, output, BM25, choice=choice, load_embedder=_no_embedder)
    return output


def _no_embedder(name: str) -> object:
    raise AssertionError("words alone need no embedder")


def test_the_table_holds_hand_worked_means_and_differences(tmp_path: Path) -> None:
    judged = folder(
        tmp_path / "fruit", {"q1": "apples", "q2": "pears"}, [("q1", "d3", 1), ("q2", "d2", 1)]
    )
    found = candidates_of(judged, tmp_path / "c.jsonl", Choice("test"))
    first = {each.query_id: [d.id for d in each.documents] for each in read_candidates(found)}
    # The shorter and the more apples, the better.
    assert first == {"q1": ["d1", "d2", "d3"], "q2": ["d2"]}
    opened: list[str] = []

    def load(row: str) -> Score:
        opened.append(row)

        def score(query: Candidates) -> list[float]:
            return [float(row == "after" and each.id == "d3") for each in query.documents]

        return score

    output = tmp_path / "evaluation.jsonl"
    models = {"step 0": "base", "after": "trained"}
    for was_current in (False, True):
        outcome = evaluate_models({judged: found}, output, models, load)
        assert outcome.was_current is was_current
    assert opened == ["step 0", "after"]
    # q1: the one relevant document third, and then first; q2: first always.
    third = 1.0 / log2(4)
    values = {each["query_id"]: each["values"] for each in read_stage(output, "evaluation")}
    assert values["fruit/q1"] == pytest.approx(
        {"before": third, "step 0": third, "after": 1.0}, abs=1e-6
    )
    text = evaluation_table(output)
    assert f"before            {(1 + third) / 2:.4f}" in text
    assert "after             1.0000   minus before +0.2500 [+0.0000, +0.5000]" in text


def test_queries_the_training_saw_are_left_out_and_counted(tmp_path: Path) -> None:
    judged = folder(
        tmp_path / "fruit",
        {"q1": "apples", "q2": "pears", "q3": "Apples "},
        [("q1", "d3", 1), ("q2", "d2", 1), ("q3", "d1", 1)],
    )
    training = candidates_of(judged, tmp_path / "train.jsonl", Choice(most=1, seed=3))
    assert len(list(read_candidates(training))) == 1
    seen = candidates_of(judged, tmp_path / "all.jsonl", Choice("test"))
    outcome = make_candidates(
        judged,
        tmp_path / "rest.jsonl",
        BM25,
        choice=Choice("test", without=frozenset({"apples"})),
        load_embedder=_no_embedder,
    )
    assert [each.query_id for each in read_candidates(outcome.path)] == ["q2"]
    assert outcome.sentences == (
        "2 of 3 queries of fruit are left out, because the training has seen them.",
    )
    with pytest.raises(BadStage, match="has no query left to use"):
        candidates_of(judged, tmp_path / "none.jsonl", Choice("test", without=query_texts(seen)))


def test_candidates_carry_the_first_stages_scores_and_are_kept(tmp_path: Path) -> None:
    judged = folder(tmp_path / "fruit", {"q1": "apples", "q2": "rivers"}, [("q1", "d3", 1)])
    output = candidates_of(judged, tmp_path / "c.jsonl")
    apples, rivers = read_candidates(output)
    assert [each.prior for each in apples.documents] == sorted(
        (each.prior or 0.0 for each in apples.documents), reverse=True
    )
    assert apples.documents[0].prior == 1.0
    # Nothing is found for words that no document has.
    assert rivers.documents == ()
    before = output.stat().st_mtime_ns
    candidates_of(judged, output)
    assert output.stat().st_mtime_ns == before
    make_candidates(judged, output, Settings("bm25", depth=1), load_embedder=_no_embedder)
    assert [len(each.documents) for each in read_candidates(output)] == [1, 0]


def test_several_folders_have_a_mean_that_counts_each_alike(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", {"q1": "apples"}, [("q1", "d3", 1)])
    queries = {"q1": "pears", "q2": "stones"}
    two = folder(tmp_path / "two", queries, [("q1", "d2", 1), ("q2", "d4", 1)])
    found = {each: candidates_of(each, tmp_path / f"{each.name}.jsonl") for each in (one, two)}
    outcome = evaluate_models(found, tmp_path / "evaluation.jsonl", {}, _no_embedder)
    # Third place, log2(4) = 2, in one; the first place for both queries of the other.
    text = evaluation_table(outcome.path)
    assert "mean of folders: nDCG@10\n  before            0.7500" in text
