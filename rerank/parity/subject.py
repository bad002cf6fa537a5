"""A reranker under test: asked the way the product asks, and how exact it can be."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank.parity.probes import Probe, preferences, prior_scores
from rerank.types import Reranker, RerankRequest, RerankScores

InstructionUse = Literal["honoured", "changes scores", "ignored"]
# Pairs of the preference probe that must turn round before a model counts as one that listens.
HONOURED_SHARE = 0.8


@dataclass(frozen=True)
class Tolerance:
    """How far two results of one number format may lie apart.

    `noise`: of one model with itself, whatever shares the batch; `error`: against an exact one;
    `rounding`: what rounding usually moves, so that closer pairs may turn round. In relevance as
    they stand, in logits times the spread of the logits.
    """

    noise: float
    error: float
    rounding: float


# Looked up by what the card's number format contains, first match first.
_TOLERANCES = (
    ("bfloat16", Tolerance(0.02, 0.05, 0.01)),
    ("float16", Tolerance(0.005, 0.01, 0.002)),
    ("8", Tolerance(0.05, 0.1, 0.02)),
    ("float32", Tolerance(1e-4, 1e-4, 0.0)),
)
_UNKNOWN = Tolerance(0.02, 0.05, 0.01)


def tolerance_of(dtype: str) -> Tolerance:
    """By the card's name of the number format, formats of 8 bits in any spelling; of several, after
    commas, the coarsest's."""
    found = [
        next((each for part, each in _TOLERANCES if part in name), _UNKNOWN)
        for name in dtype.lower().split(",")
    ]
    return max(found, key=lambda each: each.error)


class Subject:
    """`base`: the scores of all probes, asked once and kept."""

    def __init__(self, reranker: Reranker, probes: Sequence[Probe]) -> None:
        self.reranker = reranker
        self.card = reranker.card
        self.probes = probes
        self.tolerance = tolerance_of(self.card.dtype)

    def ask(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str | None = None,
        priors: Sequence[float] | None = None,
    ) -> RerankScores:
        """With priors as the product gives them; without any named, all alike."""
        given = [0.5] * len(documents) if priors is None else priors
        return self.reranker.score(RerankRequest(query, documents, instruction, given))

    @functools.cached_property
    def base(self) -> tuple[RerankScores, ...]:
        return tuple(
            self.ask(probe.query, probe.documents, priors=prior_scores(*texts_of(probe)))
            for probe in self.probes
        )

    @functools.cached_property
    def spread(self) -> float:
        """Greatest minus least logit of all probes; 0 for a model that says one thing only."""
        logits = np.concatenate([scores.logits for scores in self.base])
        finite = logits[np.isfinite(logits)]
        return float(np.ptp(finite)) if finite.size else 0.0

    @property
    def noise(self) -> float:
        """Logits this close are the same."""
        return self.tolerance.noise * self.spread

    @property
    def ranks_lists(self) -> bool:
        """Whether others in the list may rightly change a document's numbers: a listwise model or a
        cascade, whose later stages read what earlier ones kept."""
        return "stages" in self.card.extra or any(scores.scale == "rank" for scores in self.base)

    @functools.cached_property
    def instruction_use(self) -> tuple[InstructionUse, int, int, float]:
        """(result, pairs that turned round, pairs, largest change of a logit)."""
        turned, change = 0, 0.0
        pairs = preferences()
        for pair in pairs:
            plain, first, second = (
                self.ask(pair.query, [pair.first, pair.second], instruction).logits
                for instruction in (None, pair.for_first, pair.for_second)
            )
            change = max(change, gap(plain, first), gap(plain, second))
            turned += bool(first[0] - first[1] > 0 > second[0] - second[1])
        if change <= self.noise:
            return "ignored", turned, len(pairs), change
        heard = turned >= HONOURED_SHARE * len(pairs)
        return ("honoured" if heard else "changes scores"), turned, len(pairs), change


def texts_of(probe: Probe) -> tuple[str, Sequence[str]]:
    return probe.query, probe.documents


def gap(a: ArrayLike, b: ArrayLike) -> float:
    """Largest distance of two lists of numbers; what is no number is equal to its like and
    infinitely far from everything else."""
    left, right = _floats(a), _floats(b)
    if left.shape != right.shape:
        return float("inf")
    odd = ~np.isfinite(left) | ~np.isfinite(right)
    if np.any(np.isfinite(left[odd]) != np.isfinite(right[odd])):
        return float("inf")
    return float(np.max(np.abs(left[~odd] - right[~odd]), initial=0.0))


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
