"""Whether probabilities keep their word: calibration error, Brier score, reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import log_losses

Floats = NDArray[np.float64]
BINS = 10
ROUNDS = 1000


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """One point of a reliability diagram: pairs of about the same probability.

    `predicted`: their mean probability, `observed`: their mean grade with its bootstrap interval.
    """

    predicted: float
    observed: float
    low: float
    high: float
    count: int


def brier(probabilities: ArrayLike, grades: ArrayLike) -> float:
    """Mean squared distance of probability and grade, in [0, 1]."""
    p, g = checked(probabilities, grades)
    return float(np.mean((p - g) ** 2))


def expected_calibration_error(
    probabilities: ArrayLike, grades: ArrayLike, bins: int = BINS
) -> float:
    """Weighted mean of |mean probability - mean grade| over bins of equal mass, in [0, 1].

    Equal probabilities share a bin, so ties make fewer bins, never an order of their own.
    """
    p, g = checked(probabilities, grades)
    place = _places(p, bins)
    return float(np.abs(np.bincount(place, weights=p - g)).sum() / len(p))


def calibration_error_interval(
    probabilities: ArrayLike,
    grades: ArrayLike,
    queries: Sequence[object] | None = None,
    *,
    bins: int = BINS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Interval:
    """`expected_calibration_error` with its interval over queries drawn with replacement.

    Without `queries` pairs are drawn, which is too sure of itself where pairs of one query
    resemble each other. The bins stay those of the whole set. Resampling only ever adds error, so
    the interval of a small error lies above it more than below (the value is kept inside).
    """
    p, g = checked(probabilities, grades)
    value = expected_calibration_error(p, g, bins)
    sums, counts = _sums(_places(p, bins), p - g, queries)
    draws = _draws(len(sums), rounds, seed)
    errors = np.abs(draws @ sums).sum(axis=1) / np.maximum((draws @ counts).sum(axis=1), 1)
    low, high = np.quantile(errors, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


def reliability_bins(
    probabilities: ArrayLike,
    grades: ArrayLike,
    queries: Sequence[object] | None = None,
    *,
    bins: int = BINS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> list[Bin]:
    """The reliability diagram, bins of equal mass from the lowest probability to the highest."""
    p, g = checked(probabilities, grades)
    place = _places(p, bins)
    sums, counts = _sums(place, g, queries)
    draws = _draws(len(sums), rounds, seed)
    drawn = draws @ counts
    with np.errstate(invalid="ignore"):
        means = np.where(drawn > 0, (draws @ sums) / drawn, np.nan)
    found = []
    for number in range(int(place.max()) + 1):
        inside = place == number
        seen = means[~np.isnan(means[:, number]), number]
        low, high = np.quantile(seen, [0.025, 0.975]) if len(seen) else (0.0, 1.0)
        observed = float(g[inside].mean())
        found.append(
            Bin(
                predicted=float(p[inside].mean()),
                observed=observed,
                low=min(float(low), observed),
                high=max(float(high), observed),
                count=int(inside.sum()),
            )
        )
    return found


def kept_word(
    probabilities: ArrayLike, grades: ArrayLike, queries: Sequence[object]
) -> dict[str, Any]:
    """All of it at once, as reports hold it: `ece` with its interval, `brier`, `log_loss`, and
    the `bins` of the diagram. Probabilities off [0, 1] count as the nearer end."""
    p, g = checked(np.clip(probabilities, 0, 1), grades)
    return {
        "ece": asdict(calibration_error_interval(p, g, queries)),
        "brier": brier(p, g),
        "log_loss": float(log_losses(p, g).mean()),
        "bins": [asdict(each) for each in reliability_bins(p, g, queries)],
    }


def checked(probabilities: ArrayLike, grades: ArrayLike) -> tuple[Floats, Floats]:
    """Both as arrays. Raises ValueError for none at all, unequal lengths, values off [0, 1]."""
    p = np.asarray(probabilities, dtype=np.float64)
    g = np.asarray(grades, dtype=np.float64)
    if p.ndim != 1 or p.shape != g.shape or not len(p):
        raise ValueError("Probabilities and grades must be two lists of the same length, not 0.")
    for name, values in (("Probabilities", p), ("Grades", g)):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"{name} must lie between 0 and 1.")
    return p, g


def _places(p: Floats, bins: int) -> NDArray[np.intp]:
    """The bin of each pair, from 0: about equally many in each, equal probabilities together."""
    ordered = np.sort(p)
    size = min(bins, len(p))
    edges = np.unique(ordered[[len(p) * number // size for number in range(1, size)]])
    place = np.searchsorted(edges, p, side="right")
    return np.asarray(np.unique(place, return_inverse=True)[1], dtype=np.intp)


def _sums(
    place: NDArray[np.intp], values: Floats, queries: Sequence[object] | None
) -> tuple[Floats, Floats]:
    """(sum of the values, number of pairs) of each query in each bin, both (queries, bins)."""
    if queries is None:
        group = np.arange(len(place))
    else:
        if len(queries) != len(place):
            raise ValueError("Each pair needs the query it belongs to.")
        group = np.unique(np.asarray([str(each) for each in queries]), return_inverse=True)[1]
    shape = (int(group.max()) + 1, int(place.max()) + 1)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (group, place), values)
    np.add.at(counts, (group, place), 1.0)
    return sums, counts


def _draws(size: int, rounds: int, seed: int) -> Floats:
    """How often each of `size` things is drawn in each round, shape (rounds, size)."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(size, np.full(size, 1 / size), size=rounds)
    return np.asarray(drawn, dtype=np.float64)
