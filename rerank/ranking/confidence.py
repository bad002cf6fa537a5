"""Confidence of one search: the estimated probability that its first hit is relevant.

This number is Podium's own; no model family publishes one. It is a logistic regression on four
facts about the ten best logits of a search:

  top      the best logit
  lead     the best minus the second
  rise     the best minus the mean of the ten
  spread   entropy of softmax(logits / scale) over the ten, divided by ln(ten): 1 when all are alike

standardised over the judged searches it was fitted on, whose target is whether the first hit was
judged relevant. It need not agree with that hit's own calibrated relevance, which knows one score
and not how the others lie. It knows nothing of the texts: a collection that holds no answer, and a
reranker that is wrong with conviction, look to it like a good search. What it is worth is
therefore measured on queries it was not fitted on, by risk and coverage: answer only the searches
it is surest of, and see how often the first hit of those is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .calibration import RIDGE, Floats, folds_of, logistic, sigmoid
from .reliability import Interval, checked

TOP = 10
MINIMUM_QUERIES = 50
# Doubt on each standardised weight; it fades as judged searches come in.
_RIDGE = 1.0
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Confidence:
    """A fitted confidence; four weights as of the module's list. `scale`: of the spread's softmax,
    in logits."""

    weights: tuple[float, ...]
    intercept: float
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    scale: float

    def of(self, logits: ArrayLike) -> float:
        """The confidence of one search, in [0, 1], by the logits of its candidates in any order."""
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError("A confidence needs the finite logits of at least one candidate.")
        z = (_features(values, self.scale) - np.array(self.means)) / np.array(self.deviations)
        return float(sigmoid(np.array(z @ np.array(self.weights) + self.intercept)))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Confidence:
        """The inverse of `as_json`. Raises ValueError for anything else."""
        try:
            return cls(
                weights=tuple(float(each) for each in data["weights"]),
                intercept=float(data["intercept"]),
                means=tuple(float(each) for each in data["means"]),
                deviations=tuple(float(each) for each in data["deviations"]),
                scale=float(data["scale"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"This confidence is incomplete: {error}.") from error


@dataclass(frozen=True)
class RiskCoverage:
    """How often the first hit is wrong when only the surest searches are answered.

    `risk[i]`: share of wrong ones among the surest `coverage[i]` of all. `area`: mean risk over all
    coverages (AURC, Geifman et al. 2019), with the interval of `gain`: how much area it saves
    against answering in random order, whose area is the overall risk `random`. `oracle`: the area
    of an order that puts every right one first.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float
    random: float
    oracle: float
    gain: Interval

    @property
    def beats_chance(self) -> bool:
        """The whole 95 % interval of the gain lies above 0."""
        return self.gain.low > 0


@dataclass(frozen=True)
class ConfidenceFit:
    """`held_out`: each search's confidence by a fit that had not seen it. `curve`: of those."""

    confidence: Confidence
    held_out: tuple[float, ...]
    curve: RiskCoverage


def fit_confidence(
    searches: Sequence[ArrayLike], relevant: ArrayLike, *, folds: int = 5, seed: int = 0
) -> ConfidenceFit | None:
    """Fitted on judged searches; None for fewer than MINIMUM_QUERIES or where all agree.

    `searches`: the logits of each search's candidates. `relevant`: how relevant its first hit was
    judged, in [0, 1].
    """
    target = np.asarray(relevant, dtype=np.float64)
    if len(searches) != len(target):
        raise ValueError("Each search needs to be told whether its first hit was relevant.")
    if len(target) < MINIMUM_QUERIES or target.min() == target.max():
        return None
    logits = [np.asarray(each, dtype=np.float64) for each in searches]
    fold_of, _ = folds_of(range(len(target)), folds, seed)
    held_out = np.empty_like(target)
    for number in range(int(fold_of.max()) + 1):
        seen = np.flatnonzero(fold_of != number)
        fitted = _fit([logits[i] for i in seen], target[seen])
        for i in np.flatnonzero(fold_of == number):
            held_out[i] = fitted.of(logits[i])
    curve = risk_coverage(held_out, target, seed=seed)
    return ConfidenceFit(_fit(logits, target), tuple(map(float, held_out)), curve)


def risk_coverage(
    confidence: ArrayLike, relevant: ArrayLike, *, rounds: int = 1000, seed: int = 0
) -> RiskCoverage:
    """The curve over searches from the surest to the least sure.

    Equally sure ones come in random order, of which this is the expectation.
    """
    c, right = checked(confidence, relevant)
    wrong = 1 - right
    risk = _risks(c, wrong)
    area = float(risk.mean())
    random = np.random.default_rng(seed)
    gains = np.empty(rounds)
    for number in range(rounds):
        drawn = random.integers(0, len(c), len(c))
        gains[number] = wrong[drawn].mean() - _risks(c[drawn], wrong[drawn]).mean()
    low, high = np.quantile(gains, [0.025, 0.975])
    size = len(c)
    overall = float(wrong.mean())
    return RiskCoverage(
        coverage=tuple((i + 1) / size for i in range(size)),
        risk=tuple(float(each) for each in risk),
        area=area,
        random=overall,
        oracle=float(_risks(right, wrong).mean()),
        gain=Interval(overall - area, float(low), float(high)),
    )


def _risks(c: Floats, wrong: Floats) -> Floats:
    order = np.argsort(-c, kind="stable")
    _, place = np.unique(-c[order], return_inverse=True)
    # Within a tie each place is as wrong as the tie is on average.
    level = np.bincount(place, weights=wrong[order]) / np.bincount(place)
    return np.asarray(np.cumsum(level[place]) / np.arange(1, len(c) + 1), dtype=np.float64)


def _fit(logits: Sequence[Floats], target: Floats) -> Confidence:
    best = np.concatenate([np.sort(each)[::-1][:TOP] for each in logits])
    scale = max(float(best.std()), _LEAST_DEVIATION)
    x = np.stack([_features(each, scale) for each in logits])
    means, deviations = x.mean(axis=0), x.std(axis=0)
    # A fact that never varies is 0 throughout, and its weight with it.
    deviations = np.where(deviations < _LEAST_DEVIATION, 1.0, deviations)
    z = np.column_stack([(x - means) / deviations, np.ones(len(x))])
    w = logistic(z, target, np.array([_RIDGE] * x.shape[1] + [RIDGE]))
    return Confidence(
        weights=tuple(float(each) for each in w[:-1]),
        intercept=float(w[-1]),
        means=tuple(float(each) for each in means),
        deviations=tuple(float(each) for each in deviations),
        scale=scale,
    )


def _features(logits: Floats, scale: float) -> Floats:
    best = np.sort(logits)[::-1][:TOP]
    weights = np.exp((best - best[0]) / scale)
    share = weights / weights.sum()
    entropy = -float(np.sum(share * np.log(np.maximum(share, 1e-300))))
    return np.array(
        [
            best[0],
            best[0] - best[1] if len(best) > 1 else 0.0,
            best[0] - best.mean(),
            entropy / np.log(TOP),
        ]
    )
