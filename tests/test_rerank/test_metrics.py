"""Metrics by hand, with the edges that evaluation tools disagree on."""

from __future__ import annotations

import math

import pytest

from rerank.ranking.metrics import evaluate, per_query


def test_by_hand() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 0}}
    run = {"q": {"b": 3.0, "c": 2.0, "a": 1.0}}
    # gains 1, 0, 2 at discounts log2(2), log2(3), log2(4); ideal 2, 1
    expected = (1 + 2 / 2) / (2 + 1 / math.log2(3))
    result = evaluate(run, qrels)
    assert result["nDCG@10"] == pytest.approx(expected)
    assert result["R@100"] == 1.0
    assert result["RR@10"] == 1.0


def test_missing_judged_query_scores_zero() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}
    run = {"q1": {"a": 1.0}, "q2": {}}
    assert evaluate(run, qrels) == pytest.approx({"nDCG@10": 1 / 3, "R@100": 1 / 3, "RR@10": 1 / 3})


def test_unjudged_queries_and_queries_without_a_relevant_document_are_left_out() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 0}}
    run = {"q1": {"a": 1.0}, "q2": {"a": 1.0}, "q9": {"a": 1.0}}
    assert per_query(run, qrels)["nDCG@10"] == {"q1": 1.0}


def test_nothing_judged_gives_zero() -> None:
    assert evaluate({"q": {"a": 1.0}}, {})["nDCG@10"] == 0.0


def test_ties_fall_to_the_smaller_document_id_in_every_measure() -> None:
    run = {"q": {"b": 1.0, "a": 1.0}}
    assert evaluate(run, {"q": {"a": 1}})["RR@10"] == 1.0
    assert evaluate(run, {"q": {"b": 1}})["RR@10"] == 0.5
    assert evaluate(run, {"q": {"b": 1}})["nDCG@10"] == pytest.approx(1 / math.log2(3))
    # The order of insertion does not matter.
    assert evaluate({"q": {"a": 1.0, "b": 1.0}}, {"q": {"b": 1}})["RR@10"] == 0.5
