"""Calibration: monotone maps from a reranker's logit to a probability of relevance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MINIMUM_PAIRS = 10
# Keeps fits finite where one score separates the grades; negligible otherwise.
RIDGE = 1e-6


@dataclass(frozen=True)
class Platt:
    """p = sigmoid(slope * score + intercept), slope >= 0; temperature is intercept 0."""

    slope: float
    intercept: float

    def apply(self, scores: ArrayLike) -> Floats:
        """Probabilities in [0, 1], in the shape of the scores."""
        return _sigmoid(self.slope * np.asarray(scores, dtype=np.float64) + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """Linear between rising knots, constant beyond the outermost ones."""

    scores: tuple[float, ...]
    values: tuple[float, ...]

    def apply(self, scores: ArrayLike) -> Floats:
        """Probabilities in [0, 1], in the shape of the scores."""
        at = np.asarray(scores, dtype=np.float64)
        return np.asarray(np.interp(at, self.scores, self.values), dtype=np.float64)


Calibration = Platt | Isotonic


def fit_platt(scores: ArrayLike, grades: ArrayLike) -> Platt:
    """Least log loss over slope >= 0 and intercept; grades are probabilities in [0, 1]."""
    s, g = _checked(scores, grades)
    slope, intercept = _logistic(np.column_stack([s, np.ones_like(s)]), g)
    if slope < 0:
        mean = float(g.mean())
        return Platt(0.0, float(np.log(mean / (1 - mean))))
    return Platt(float(slope), float(intercept))


def fit_temperature(scores: ArrayLike, grades: ArrayLike) -> Platt:
    """Least log loss of sigmoid(score / temperature); the slope is 1 / temperature."""
    s, g = _checked(scores, grades)
    return Platt(max(0.0, float(_logistic(s[:, None], g)[0])), 0.0)


def fit_isotonic(scores: ArrayLike, grades: ArrayLike) -> Isotonic:
    """Least squares over non-decreasing maps: pool adjacent violators, equal scores pooled."""
    s, g = _checked(scores, grades)
    knots, place, counts = np.unique(s, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=g) / counts
    blocks: list[tuple[float, float, int]] = []
    for mean, count in zip(means, counts, strict=True):
        block = (float(mean), float(count), 1)
        while blocks and blocks[-1][0] >= block[0]:
            value, weight, size = blocks.pop()
            total = weight + block[1]
            block = ((value * weight + block[0] * block[1]) / total, total, size + block[2])
        blocks.append(block)
    values = [min(1.0, max(0.0, value)) for value, _, size in blocks for _ in range(size)]
    return Isotonic(tuple(float(knot) for knot in knots), tuple(values))


def brier(probabilities: ArrayLike, grades: ArrayLike) -> float:
    """Mean squared distance of probability and grade, in [0, 1]."""
    p, g = _checked(probabilities, grades)
    return float(np.mean((p - g) ** 2))


def expected_calibration_error(
    probabilities: ArrayLike, grades: ArrayLike, bins: int = 10
) -> float:
    """Weighted mean of |mean probability - mean grade| over bins of equal mass, in [0, 1]."""
    p, g = _checked(probabilities, grades)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(float(np.sum(p[i] - g[i]))) for i in parts) / len(p))


def to_json(calibration: Calibration) -> str:
    """The calibration as one JSON object."""
    kind = "platt" if isinstance(calibration, Platt) else "isotonic"
    return json.dumps({"kind": kind, **asdict(calibration)})


def from_json(text: str) -> Calibration:
    """The calibration that `to_json` wrote; ValueError for any other kind."""
    data = json.loads(text)
    if data["kind"] == "platt":
        return Platt(float(data["slope"]), float(data["intercept"]))
    if data["kind"] == "isotonic":
        return Isotonic(tuple(data["scores"]), tuple(data["values"]))
    raise ValueError(f"There is no calibration of the kind {data['kind']!r}.")


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), dtype=np.float64)


def _logistic(x: Floats, g: Floats) -> Floats:
    """Damped Newton on the log loss."""
    w = np.zeros(x.shape[1])

    def loss(v: Floats) -> float:
        z = x @ v
        return float(np.sum(np.logaddexp(0, z) - g * z) + RIDGE * (v @ v) / 2)

    for _ in range(100):
        p = _sigmoid(x @ w)
        slope = x.T @ (p - g) + RIDGE * w
        curve = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(w))
        step = np.linalg.solve(curve, slope)
        rate = 1.0
        while rate > 1e-8 and loss(w - rate * step) > loss(w):
            rate /= 2
        w = w - rate * step
        if float(np.abs(rate * step).max()) < 1e-10:
            break
    return np.asarray(w, dtype=np.float64)


def _checked(scores: ArrayLike, grades: ArrayLike) -> tuple[Floats, Floats]:
    s = np.asarray(scores, dtype=np.float64)
    g = np.asarray(grades, dtype=np.float64)
    if s.ndim != 1 or s.shape != g.shape:
        raise ValueError("Scores and grades must be two lists of the same length.")
    if len(s) < MINIMUM_PAIRS:
        raise ValueError(f"Calibration needs at least {MINIMUM_PAIRS} judged pairs, not {len(s)}.")
    if not (np.isfinite(s).all() and np.isfinite(g).all() and g.min() >= 0 and g.max() <= 1):
        raise ValueError("Scores must be finite and grades must lie between 0 and 1.")
    if g.min() == g.max():
        raise ValueError("All grades are the same; judge relevant and irrelevant pairs.")
    return s, g
