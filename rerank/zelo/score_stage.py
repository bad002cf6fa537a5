"""The stage that turns preferences into scores of documents and targets of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rerank.errors import BadStage

from .links import LINKS, Floats
from .offsets import DEFAULT_OFFSET_RIDGE, Bridges, Offsets, fit_offsets, targets
from .progress import Bar
from .records import (
    Candidates,
    Header,
    Outcome,
    Record,
    input_digest,
    is_current,
    read_candidates,
    read_stage,
    untouched,
    write_stage,
)
from .scoring import DEFAULT_RIDGE, Preferences, ZeloScores, fit_scores

# Queries whose fits are in memory together.
FITTED_AT_ONCE = 256


def score_documents(
    candidates: Path,
    preferences: Path,
    output: Path,
    *,
    link: str = "thurstone",
    ridge: float = DEFAULT_RIDGE,
    offset_ridge: float = DEFAULT_OFFSET_RIDGE,
    mean_target: float = 0.5,
) -> Outcome:
    """Scores and targets: `{"query_id", "offset", "offset_deviation", "components", "documents":
    [{"id", "score", "deviation", "target"}, ...]}` a query, documents in first-stage order.

    `score` and `deviation`: of `fit_scores`, mean 0 over the query's distinct documents. `target`:
    in [0, 1], comparable across queries (`targets`). Copies of a text share all three. Raises
    BadStage, BadPreferences.
    """
    header = Header(
        "scores",
        {"candidates": input_digest(candidates), "preferences": input_digest(preferences)},
        {
            "link": link,
            "ridge": ridge,
            "offset_ridge": offset_ridge,
            "mean_target": mean_target,
        },
    )
    if link not in LINKS:
        raise BadStage(f"There is no link {link!r}: it is one of {', '.join(LINKS)}.")
    if is_current(output, header):
        return untouched(output)
    queries = list(read_candidates(candidates))
    told = {record["query_id"]: record for record in read_stage(preferences, "preferences")}
    places = [{name: at for at, name in enumerate(query.distinct())} for query in queries]
    fits = _fits(queries, places, told, link, ridge)
    offsets = _fit_offsets(queries, places, told, fits, link, offset_ridge)
    aims = targets([fit.scores for fit in fits], offsets.values, mean=mean_target, link=LINKS[link])
    sentences = _connection_sentences(fits, offsets, any(r["bridges"] for r in told.values()))
    records = (
        _score_record(query, places[at], fits[at], aims[at], offsets, at)
        for at, query in enumerate(queries)
    )
    return Outcome(output, write_stage(output, header, records), sentences=tuple(sentences))


def _fits(
    queries: Sequence[Candidates],
    places: Sequence[Mapping[str, int]],
    told: Mapping[str, Record],
    link: str,
    ridge: float,
) -> list[ZeloScores]:
    fits: list[ZeloScores] = []
    with Bar("scores", "queries", len(queries)) as bar:
        for start in range(0, len(queries), FITTED_AT_ONCE):
            part = range(start, min(start + FITTED_AT_ONCE, len(queries)))
            known = [_known(queries[at].query_id, places[at], told) for at in part]
            fits += fit_scores(known, link=LINKS[link], ridge=ridge)
            bar.update(len(part))
    return fits


def _known(query_id: str, places: Mapping[str, int], told: Mapping[str, Record]) -> Preferences:
    rows = told.get(query_id, {"preferences": []})["preferences"]
    try:
        pairs = [(places[row["a"]], places[row["b"]]) for row in rows]
    except KeyError as error:
        raise BadStage(
            f"The preferences of query {query_id} name the document {error}, which is not among "
            "its candidates: run the stages before again."
        ) from error
    return Preferences(
        len(places),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        np.array([row["preference"] for row in rows], dtype=np.float64),
        np.array([row["weight"] for row in rows], dtype=np.float64),
    )


def _fit_offsets(
    queries: Sequence[Candidates],
    places: Sequence[Mapping[str, int]],
    told: Mapping[str, Record],
    fits: Sequence[ZeloScores],
    link: str,
    ridge: float,
) -> Offsets:
    numbers = {query.query_id: at for at, query in enumerate(queries)}
    pairs, margins, values, weights = [], [], [], []
    for query_id, record in told.items():
        for row in record["bridges"]:
            try:
                first, second = numbers[query_id], numbers[row["query_b"]]
                margin = (
                    fits[first].scores[places[first][row["a"]]]
                    - fits[second].scores[places[second][row["b"]]]
                )
            except KeyError as error:
                raise BadStage(
                    f"A preference across queries of {query_id} names {error}, which is unknown: "
                    "run the stages before again."
                ) from error
            pairs.append((first, second))
            margins.append(margin)
            values.append(row["preference"])
            weights.append(row["weight"])
    bridges = Bridges(
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        np.array(values, dtype=np.float64),
        np.array(margins, dtype=np.float64),
        np.array(weights, dtype=np.float64),
    )
    return fit_offsets(len(queries), bridges, link=LINKS[link], ridge=ridge)


def _connection_sentences(
    fits: Sequence[ZeloScores], offsets: Offsets, has_bridges: bool
) -> list[str]:
    sentences = []
    torn = sum(1 for fit in fits if fit.components > 1)
    if torn:
        sentences.append(
            f"In {torn} of {len(fits)} queries the answers leave documents unconnected: scores of "
            "unconnected documents compare by the prior alone, and their deviations say so."
        )
    if not has_bridges and len(fits) > 1:
        sentences.append(
            "No comparison joins different queries: targets say how good a document is beside the "
            "other candidates of its query, not whether it is relevant."
        )
    elif offsets.components > 1:
        sentences.append(
            f"The comparisons across queries leave {offsets.components} groups of queries "
            "unconnected: their targets compare by the prior alone."
        )
    return sentences


def _score_record(
    query: Candidates,
    places: Mapping[str, int],
    fit: ZeloScores,
    aims: Floats,
    offsets: Offsets,
    at: int,
) -> Record:
    twins = query.twins()

    def document(name: str) -> Record:
        place = places[twins[name]]
        return {
            "id": name,
            "score": round(float(fit.scores[place]), 6),
            "deviation": round(float(fit.deviations[place]), 6),
            "target": round(float(aims[place]), 6),
        }

    return {
        "query_id": query.query_id,
        "offset": round(float(offsets.values[at]), 6),
        "offset_deviation": round(float(offsets.deviations[at]), 6),
        "components": fit.components,
        "documents": [document(each.id) for each in query.documents],
    }
