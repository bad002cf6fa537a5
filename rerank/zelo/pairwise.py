"""A trained pairwise model as a judge: it answers what would be too dear to ask the ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rerank.errors import BadStage
from rerank.inference.loading import quietly
from rerank.training.bases import TrainingRow, open_base, score_rows
from rerank.training.examples import PairExample

from .judges import Free
from .judging import Comparison, Verdict, sides_of
from .records import read_candidates, read_stage

# The query of a comparison across queries, where each document brings its own.
EACH_ITS_OWN = "Which document answers its own query better?"


class PairwiseJudge(Free):
    """P(a is better) of the pairwise model in `directory`, whose weights `name` should stand for.
    Free of charge.

    Raises ModelNotFound, WrongModel, DeviceError.
    """

    def __init__(self, directory: Path, name: str, device: str = "auto") -> None:
        super().__init__(name)
        with quietly():
            self._base = open_base(str(directory), device=device)

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        logits = score_rows(self._base, [self._row(each) for each in comparisons])
        values = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        return [
            Verdict(float(value)) if np.isfinite(value) else Verdict(None, "It gave no number.")
            for value in values
        ]

    def _row(self, comparison: Comparison) -> TrainingRow:
        query, a, b = pair_texts(comparison)
        return self._base.pair_row(query, "", a, b)


def pair_texts(comparison: Comparison) -> tuple[str, str, str]:
    """(query, a, b) as the pairwise model reads them, in training and as a judge."""
    a, b = comparison.a, comparison.b
    if not comparison.is_across_queries:
        return a.query, a.text, b.text
    return EACH_ITS_OWN, f"{a.query}\n\n{a.text}", f"{b.query}\n\n{b.text}"


def pair_examples(candidates: Path, preferences: Path) -> Iterator[PairExample]:
    """What the judges prefer, within queries and across them. Raises BadStage."""
    sides = sides_of(read_candidates(candidates))
    for record in read_stage(preferences, "preferences"):
        query_id = record["query_id"]
        for row in [*record["preferences"], *record["bridges"]]:
            try:
                comparison = Comparison(
                    sides[query_id][row["a"]], sides[row.get("query_b", query_id)][row["b"]]
                )
            except KeyError as error:
                raise BadStage(
                    f"{preferences} names {error}, which is not among the candidates: run the "
                    "stages before again."
                ) from error
            query, a, b = pair_texts(comparison)
            yield PairExample(query, "", a, b, row["preference"], row["weight"], query_id)
