"""Failures of a pointwise model: the best human-judged document, and the one above it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rerank.errors import BadStage
from rerank.evaluation.beir import read_qrels
from rerank.zelo.records import Candidates, Document, read_header, read_stage, write_candidates
from rerank.zelo.second_pass import Failure, Score, add_failures, failure_of
from rerank.zelo.stages import make_pairs


def query(name: str, *texts: str) -> Candidates:
    documents = tuple(Document(f"d{at}", text) for at, text in enumerate(texts))
    return Candidates(name, f"query {name}", documents)


def test_the_best_document_of_people_meets_the_one_above_it() -> None:
    found = query("q", "a", "b", "c", "d")
    # The model's order: d3, d1, d0, d2; people say d2 2, d0 1.
    scores = [0.2, 0.5, 0.1, 0.9]
    failure = failure_of(found, scores, {"d0": 1, "d2": 2}, 3)
    assert failure == Failure("q", "d2", "d0", 4)
    assert failure_of(found, scores, {"d0": 1, "d2": 2}, 4) is None
    # Of equal grades the one ranked first counts.
    assert failure_of(found, scores, {"d0": 2, "d2": 2}, 2) == Failure("q", "d0", "d1", 3)
    assert failure_of(found, scores, {"d0": 2, "d2": 2}, 3) is None


def test_unjudged_queries_and_the_first_place_are_no_failures() -> None:
    found = query("q", "a", "b")
    assert failure_of(found, [0.1, 0.9], {}, 1) is None
    assert failure_of(found, [0.1, 0.9], {"d0": 0}, 1) is None
    assert failure_of(found, [0.1, 0.9], {"d1": 1}, 1) is None
    assert failure_of(query("q"), [], {"d0": 1}, 1) is None


def test_copies_of_a_text_stand_for_one_document() -> None:
    found = query("q", "same", "other", "same ")
    # Only the copy was judged, and it ranks as high as the text does anywhere.
    assert failure_of(found, [0.1, 0.5, 0.9], {"d2": 1}, 1) is None
    failure = failure_of(found, [0.1, 0.5, 0.2], {"d2": 1}, 1)
    assert failure == Failure("q", "d0", "d1", 2)


def test_failures_join_the_pairs_asked_before(tmp_path: Path) -> None:
    candidates, pairs, output = (tmp_path / n for n in ("c.jsonl", "p.jsonl", "f.jsonl"))
    qrels = tmp_path / "test.tsv"
    write_candidates(candidates, [query(name, "a", "b", "c", "d") for name in ("q1", "q2", "q3")])
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td3\t1\n")
    make_pairs(candidates, pairs, gold=1, bridge_degree=0)
    asked: list[str] = []

    def score() -> Score:
        def one(found: Candidates) -> Sequence[float]:
            asked.append(found.query_id)
            return [float(place) for place in range(len(found.documents))]

        return one

    for was_current in (False, True):
        outcome = add_failures(
            candidates, pairs, qrels, read_qrels, output, score, worst_rank=2, model="m"
        )
        assert outcome.was_current is was_current
    assert asked == ["q1", "q2"]
    assert outcome.sentences == ("In 1 of 2 judged queries the best document stands below rank 2.",)
    before = {each["query_id"]: each["pairs"] for each in read_stage(pairs, "pairs")}
    after = {each["query_id"]: each["pairs"] for each in read_stage(output, "pairs")}
    assert after["q1"][-1] == ["d0", "d1"] and len(after["q1"]) in (1, 2)
    assert after["q2"] == before["q2"] and after["q3"] == before["q3"]
    assert read_header(output).notes["failures"] == 1


def test_without_a_judged_candidate_a_second_pass_says_so(tmp_path: Path) -> None:
    candidates, pairs, qrels = (tmp_path / n for n in ("c.jsonl", "p.jsonl", "q.tsv"))
    write_candidates(candidates, [query("q1", "a", "b")])
    qrels.write_text("q9\td0\t1\n")
    make_pairs(candidates, pairs)
    with pytest.raises(BadStage, match=r"None of the queries has a candidate that q.tsv"):
        add_failures(
            candidates,
            pairs,
            qrels,
            read_qrels,
            tmp_path / "f.jsonl",
            lambda: lambda found: [],
            worst_rank=1,
            model="m",
        )
