"""Retrieval quality by ir-measures (trec_eval's definitions), with the edges decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ir_measures

from rerank.types import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10")


def evaluate(
    run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES
) -> dict[str, float]:
    """Measure name -> mean over the judged queries, in [0, 1]; 0 when there are none.

    A judged query missing from the run counts as 0; a query of the run without judgments is left
    out, as is one whose judgments are all 0 or less. Names are those of ir-measures ("nDCG@10").
    """
    return {
        name: sum(values.values()) / len(values) if values else 0.0
        for name, values in per_query(run, qrels, measures).items()
    }


def per_query(
    run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES
) -> dict[str, dict[str, float]]:
    """Measure name -> query id -> value, for every judged query (as `evaluate`).

    Ties: scores are replaced by positions before the measures see them, equal scores falling to
    the smaller document id. Otherwise each measure breaks ties its own way, and a score that
    differs in its last bit would change the result.
    """
    judged = {
        query: {document: int(grade) for document, grade in grades.items()}
        for query, grades in qrels.items()
        if any(grade > 0 for grade in grades.values())
    }
    values = {name: dict.fromkeys(judged, 0.0) for name in measures}
    parsed = {ir_measures.parse_measure(name): name for name in measures}
    positions = {query: _positions(run[query]) for query in judged if run.get(query)}
    if positions:
        for row in ir_measures.iter_calc(list(parsed), judged, positions):
            values[parsed[row.measure]][row.query_id] = float(row.value)
    return values


def _positions(scores: Mapping[str, float]) -> dict[str, float]:
    best_first = sorted(scores, key=lambda document: (-scores[document], document))
    return {document: -float(place) for place, document in enumerate(best_first)}
