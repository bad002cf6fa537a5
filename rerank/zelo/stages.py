"""From file to file: candidates -> pairs -> answers -> preferences (-> scores, `score_stage`).

Each stage can be run by itself. One whose file was made from the same inputs with the same settings
does nothing; asking goes on where it ended, since answers are kept one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rerank.errors import BadStage

from .answers import AnswerBook
from .judging import (
    Comparison,
    Judge,
    JudgingReport,
    ask,
    choice_by_place,
    distinct,
    estimate_cost,
    is_swapped,
    sides_of,
)
from .links import Floats
from .pairing import gold_pairs, random_cycles
from .progress import with_bar
from .raters import Consensus, calibrated_consensus, plain_consensus
from .records import (
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
from .spending import Spending

DO_IDS_AGREE = "Do the ids of the judgments agree with those of the queries and documents?"
DEFAULT_DEGREE = 8
DEFAULT_BRIDGE_DEGREE = 8


def make_pairs(
    candidates: Path,
    output: Path,
    *,
    degree: int = DEFAULT_DEGREE,
    bridge_degree: int = DEFAULT_BRIDGE_DEGREE,
    gold: int = 0,
    seed: int = 0,
) -> Outcome:
    """Which documents to compare: `{"query_id", "pairs": [[a, b], ...], "bridges": [[a, query, b],
    ...]}` a query.

    `degree`: comparisons of each document (`random_cycles`); copies of a text are compared once.
    `bridge_degree`: comparisons of each query with others, of a random document of each, 2 or more;
    0 for none. Queries without documents have no bridges. `gold`: so many `gold_pairs` a query, to
    train a pairwise model with, instead of the cycles; 0 for the cycles. Raises BadStage.
    """
    header = Header(
        "pairs",
        {"candidates": input_digest(candidates)},
        {"degree": degree, "bridge_degree": bridge_degree, "gold": gold, "seed": seed},
    )
    if is_current(output, header):
        return untouched(output)
    queries = [(query.query_id, query.distinct()) for query in read_candidates(candidates)]
    bridges = _bridges(queries, bridge_degree, seed)

    def records() -> Iterator[Record]:
        for query_id, documents in with_bar(queries, "pairs", "queries", len(queries)):
            own = _seed(seed, query_id)
            count = len(documents)
            pairs = gold_pairs(count, gold, own) if gold else random_cycles(count, degree, own)
            yield {
                "query_id": query_id,
                "pairs": [[documents[a], documents[b]] for a, b in pairs.tolist()],
                "bridges": bridges.get(query_id, []),
            }

    return Outcome(output, write_stage(output, header, records()))


def estimate_judging(
    candidates: Path, pairs: Path, answers: Path, judges: Sequence[Judge], *, seed: int = 0
) -> Mapping[str, float]:
    """judge -> what asking it would cost now (`estimate_cost`). Asks nobody."""
    comparisons = distinct(_comparisons(candidates, pairs))
    return estimate_cost(judges, comparisons, AnswerBook(answers), seed)


def ask_judges(
    candidates: Path,
    pairs: Path,
    answers: Path,
    judges: Sequence[Judge],
    *,
    seed: int = 0,
    budget: float | None = None,
    spending: Spending | None = None,
) -> JudgingReport:
    """Has the judges answer all pairs (`ask`); what `answers` holds is not asked again."""
    comparisons = distinct(_comparisons(candidates, pairs))
    report = ask(
        judges, comparisons, AnswerBook(answers), seed=seed, budget=budget, spending=spending
    )
    # The next stage reads the file even where there was nothing to compare.
    answers.touch()
    return report


def combine_answers(
    candidates: Path,
    pairs: Path,
    answers: Path,
    output: Path,
    judges: Sequence[str],
    *,
    calibrate: bool = True,
    seed: int = 0,
) -> Outcome:
    """The judges' answers as one preference per pair: `{"query_id", "preferences": [{"a", "b",
    "preference", "weight"}, ...], "bridges": [{"a", "query_b", "b", "preference", "weight"},
    ...]}` a query.

    `judges`: names; a judge that chooses by place is left out. `calibrate`: weigh judges by how
    reliable they prove (`calibrated_consensus`), else alike. `seed` as it was when they were asked.
    Pairs without any answer are left out. The header's notes hold what was found of each judge.
    Raises BadStage, also when no pair was answered.
    """
    header = Header(
        "preferences",
        {
            "candidates": input_digest(candidates),
            "pairs": input_digest(pairs),
            "answers": input_digest(answers),
        },
        {"judges": list(judges), "calibrate": calibrate, "seed": seed},
    )
    if is_current(output, header):
        return untouched(output)
    comparisons = list(_comparisons(candidates, pairs))
    book = AnswerBook(answers)
    believed, sentences = _believed(judges, book)
    shown, swapped = _table(believed, comparisons, book, seed)
    mix = calibrated_consensus if calibrate else plain_consensus
    consensus = mix(believed, shown, swapped)
    missing = int((consensus.weights == 0).sum())
    if missing == len(comparisons) and comparisons:
        others = ", ".join(book.judges()) or "nobody"
        raise BadStage(
            f"{answers} answers none of the pairs: ask the judges first. It holds answers of "
            f"{others}; wanted were those of {', '.join(judges)}."
        )
    if missing:
        sentences.append(f"{missing} of {len(comparisons)} pairs have no answer and are left out.")
    answered = consensus.values[consensus.weights > 0]
    if len(answered) and (answered == 0.5).all():
        sentences.append(f"Every answer is a tie, so there is nothing to learn. {DO_IDS_AGREE}")
    sentences += [rater.suspicion for rater in consensus.raters if rater.suspicion]
    header = Header(
        header.stage,
        header.made_from,
        header.settings,
        {"raters": [asdict(rater) for rater in consensus.raters], "sentences": sentences},
    )
    order = [query.query_id for query in read_candidates(candidates)]
    records = _preference_records(order, comparisons, consensus)
    return Outcome(output, write_stage(output, header, records), sentences=tuple(sentences))


def _seed(seed: int, query_id: str) -> int:
    """Each query's own, so that it does not depend on the others in the file."""
    text = f"{seed}\x00{query_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _bridges(
    queries: Sequence[tuple[str, list[str]]], degree: int, seed: int
) -> dict[str, list[list[str]]]:
    filled = [(query_id, documents) for query_id, documents in queries if documents]
    found: dict[str, list[list[str]]] = {}
    if not degree:
        return found
    random = np.random.default_rng(_seed(seed, ""))
    for first, second in random_cycles(len(filled), max(2, degree), seed).tolist():
        (query_a, documents_a), (query_b, documents_b) = filled[first], filled[second]
        a = documents_a[int(random.integers(len(documents_a)))]
        b = documents_b[int(random.integers(len(documents_b)))]
        found.setdefault(query_a, []).append([a, query_b, b])
    return found


def _comparisons(candidates: Path, pairs: Path) -> Iterator[Comparison]:
    """In the order of the pairs file, those within a query before its bridges."""
    sides = sides_of(read_candidates(candidates))
    for record in read_stage(pairs, "pairs"):
        query_id = record["query_id"]
        try:
            for a, b in record["pairs"]:
                yield Comparison(sides[query_id][a], sides[query_id][b])
            for a, query_b, b in record["bridges"]:
                yield Comparison(sides[query_id][a], sides[query_b][b])
        except (KeyError, TypeError, ValueError) as error:
            raise BadStage(
                f"{pairs} does not fit {candidates}: {error} of query {query_id} is unknown. Run "
                "the stage pairs again."
            ) from error


def _believed(judges: Sequence[str], book: AnswerBook) -> tuple[list[str], list[str]]:
    """The judges whose answers count, and a sentence on each of the others."""
    believed, sentences = [], []
    for judge in judges:
        if by_place := choice_by_place(*book.preference_for_first(judge)):
            sentences.append(f"The judge {judge} is left out: {by_place}.")
        else:
            believed.append(judge)
    return believed, sentences


def _table(
    judges: Sequence[str], comparisons: Sequence[Comparison], book: AnswerBook, seed: int
) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
    shown = np.full((len(judges), len(comparisons)), np.nan)
    swapped = np.zeros(shown.shape, dtype=np.bool_)
    for row, judge in enumerate(judges):
        for column, comparison in enumerate(comparisons):
            swapped[row, column] = is_swapped(judge, comparison, seed)
            answer = book.get(judge, comparison.key, bool(swapped[row, column]))
            if answer is not None and answer.preference is not None:
                shown[row, column] = answer.preference
    return shown, swapped


def _preference_records(
    order: Sequence[str], comparisons: Sequence[Comparison], consensus: Consensus
) -> Iterator[Record]:
    within: dict[str, list[Record]] = {query_id: [] for query_id in order}
    across: dict[str, list[Record]] = {query_id: [] for query_id in order}
    for comparison, value, weight in zip(
        comparisons, consensus.values.tolist(), consensus.weights.tolist(), strict=True
    ):
        if not weight:
            continue
        a, b = comparison.a, comparison.b
        known = {"preference": round(value, 6), "weight": round(weight, 6)}
        if comparison.is_across_queries:
            record = {"a": a.document_id, "query_b": b.query_id, "b": b.document_id, **known}
            across[a.query_id].append(record)
        else:
            within[a.query_id].append({"a": a.document_id, "b": b.document_id, **known})
    for query_id in order:
        yield {
            "query_id": query_id,
            "preferences": within[query_id],
            "bridges": across[query_id],
        }
