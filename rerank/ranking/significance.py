"""Whether one system beats another on the same queries, or the difference may be chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Comparison:
    """`difference`: mean of b minus a over the common queries. `p_value`: two-sided, of the paired
    randomisation test. `low`, `high`: bootstrap interval of the difference at `confidence`."""

    queries: int
    difference: float
    p_value: float
    low: float
    high: float
    confidence: float


def compare(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    rounds: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares per-query values of one measure (`metrics.per_query`), reproducibly by `seed`.

    Raises ValueError when the two do not hold the same queries.
    """
    if set(a) != set(b):
        raise ValueError("the two systems were not measured on the same queries")
    names = sorted(a)
    differences = np.array([b[name] - a[name] for name in names], dtype=np.float64)
    if not len(names):
        return Comparison(0, 0.0, 1.0, 0.0, 0.0, confidence)
    random = np.random.default_rng(seed)
    low, high = bootstrap_interval(differences, rounds, confidence, random)
    return Comparison(
        queries=len(names),
        difference=float(differences.mean()),
        p_value=randomisation_p_value(differences, rounds, random),
        low=low,
        high=high,
        confidence=confidence,
    )


def randomisation_p_value(
    differences: NDArray[np.float64], rounds: int, random: np.random.Generator
) -> float:
    """Two-sided p of a mean at least this far from 0 when each query's sign is a coin flip.

    (Fisher 1935; Smucker et al. 2007.) The observed assignment counts as one of the rounds, so
    the p-value is never 0.
    """
    observed = abs(differences.mean())
    at_least = 1
    for _ in range(rounds):
        signs = random.integers(0, 2, len(differences)) * 2 - 1
        at_least += abs(float((signs * differences).mean())) >= observed - 1e-12
    return at_least / (rounds + 1)


def bootstrap_interval(
    differences: NDArray[np.float64], rounds: int, confidence: float, random: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of the mean over queries drawn with replacement (Efron 1979)."""
    size = len(differences)
    means = [differences[random.integers(0, size, size)].mean() for _ in range(rounds)]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)
