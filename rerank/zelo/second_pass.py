"""The second pass: where the pointwise model puts a document that people chose too far down, the
judges are asked about it and the one above it (arXiv 2509.12541)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank.errors import BadStage
from rerank.types import Qrels

from .progress import with_bar
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

# A query with its documents -> one score each, the greater the better.
Score = Callable[[Candidates], Sequence[float]]


@dataclass(frozen=True)
class Failure:
    """`rank`, from 1, of the best human-judged document `chosen`; `above`: the one before it."""

    query_id: str
    chosen: str
    above: str
    rank: int


def failure_of(
    query: Candidates, scores: Sequence[float], grades: Mapping[str, int], worst_rank: int
) -> Failure | None:
    """None where the best human-judged document stands at `worst_rank` or better, or where no
    candidate was judged relevant. Of several with the best grade the one ranked first counts;
    copies of a text stand for one."""
    twins = query.twins()
    best: dict[str, float] = {}
    for document, score in zip(query.documents, scores, strict=True):
        own = twins[document.id]
        best[own] = max(best.get(own, score), score)
    order = sorted(best, key=lambda name: -best[name])
    worth: dict[str, int] = {}
    for document in query.documents:
        own = twins[document.id]
        worth[own] = max(worth.get(own, 0), grades.get(document.id, 0))
    top = max(worth.values(), default=0)
    if top <= 0:
        return None
    rank, chosen = next((at, name) for at, name in enumerate(order, start=1) if worth[name] == top)
    if rank <= worst_rank:
        return None
    return Failure(query.query_id, chosen, order[rank - 2], rank)


def add_failures(
    candidates: Path,
    pairs: Path,
    qrels: Path,
    read_qrels: Callable[[Path], Qrels],
    output: Path,
    score: Callable[[], Score],
    *,
    worst_rank: int,
    model: str,
) -> Outcome:
    """The pairs asked before and, for each failure, the pair (best human-judged document, the one
    above it), as a pairs file. Notes: `failures` and `judged`, the queries looked at.

    `score()` gives the pointwise model that `model` names; called only where there is work. Raises
    BadStage, also when none of the queries has a document that people judged relevant.
    """
    header = Header(
        "pairs",
        {
            "candidates": input_digest(candidates),
            "pairs": input_digest(pairs),
            "qrels": input_digest(qrels),
        },
        {"worst_rank": worst_rank, "model": model},
    )
    if is_current(output, header):
        return untouched(output)
    judged = read_qrels(qrels)
    queries = [
        query
        for query in read_candidates(candidates)
        if any(judged.get(query.query_id, {}).get(each.id, 0) > 0 for each in query.documents)
    ]
    if not queries:
        raise BadStage(
            f"None of the queries has a candidate that {qrels.name} judges relevant, so there is "
            "nothing to measure a second pass by."
        )
    scorer = score()
    failures: dict[str, Failure] = {}
    for query in with_bar(queries, "second pass", "queries", len(queries)):
        grades = judged[query.query_id]
        if failure := failure_of(query, scorer(query), grades, worst_rank):
            failures[query.query_id] = failure
    sentence = (
        f"In {len(failures)} of {len(queries)} judged queries the best document stands below rank "
        f"{worst_rank}."
    )
    notes = {"failures": len(failures), "judged": len(queries), "sentences": [sentence]}
    records = _with_failures(pairs, failures)
    written = write_stage(
        output, Header(header.stage, header.made_from, header.settings, notes), records
    )
    return Outcome(output, written, sentences=(sentence,))


def _with_failures(pairs: Path, failures: Mapping[str, Failure]) -> Iterator[Record]:
    for record in read_stage(pairs, "pairs"):
        if failure := failures.get(record["query_id"]):
            pair = [failure.chosen, failure.above]
            known = pair in record["pairs"] or pair[::-1] in record["pairs"]
            added = record["pairs"] if known else [*record["pairs"], pair]
            yield {**record, "pairs": added}
        else:
            yield record
