"""How far each rater can be believed, found from where raters agree: a Beta per rater, by EM.

Published is one sentence: each rater gets a Beta by mean and precision (mu, kappa), and raters are
mixed iteratively by how reliable they proved. The formulas below are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rerank.errors import BadPreferences

from .links import Floats

Bools = NDArray[np.bool_]

ROUNDS = 500
SMALLEST_MU = 0.02
SMALLEST_KAPPA = 0.01
# Variance that even a rater who repeats itself is taken to have.
SMALLEST_VARIANCE = 1e-3
LARGEST_SAMPLE = 50_000
# Fewer raters contradict each other without showing who is wrong.
FEWEST_RATERS = 3
# Fewer answers, or fewer that another rater can be held against, say nothing of a rater: a leaning
# or a closeness found in them is chance.
FEWEST_ANSWERS = 30
# Files hold weights with six decimals; less than their last one is nothing.
SMALLEST_SHARE = 1e-6
SUSPECT_RELIABILITY = 0.25
SUSPECT_BIAS = 0.15


@dataclass(frozen=True)
class Rater:
    """What one rater says of a pair whose consensus for the document shown first is p:
    Beta(mu kappa, (1 - mu) kappa) with mu = 1/2 + bias + slope (p - 1/2).

    `bias`: its leaning to the document shown first, 0 for none. `slope`: 1 follows the consensus, 0
    ignores it. `kappa`: how closely it keeps to mu, above 0. `reliability`: the share of the
    variance of its answers that the consensus explains, in [0, 1]. `precision`: slope^2 / variance
    of the rest, by which it is weighted. `answers`: how many that is known from. `suspicion`: a
    sentence when it should not be believed, else "".
    """

    name: str
    answers: int
    bias: float
    slope: float
    kappa: float
    reliability: float
    precision: float
    suspicion: str = ""


@dataclass(frozen=True)
class Consensus:
    """`values`, `weights`: shape (comparisons,): the raters' mixed preference for the document in
    the first place of the pair (NaN where nobody answered), and the number of answers of the best
    rater that this is worth."""

    raters: tuple[Rater, ...]
    values: Floats
    weights: Floats


def plain_consensus(names: Sequence[str], shown: Floats, swapped: Bools) -> Consensus:
    """The mean of all answers, each rater believed alike."""
    shown, swapped = _checked(names, shown, swapped)
    straight = np.where(swapped, 1.0 - shown, shown)
    answered = ~np.isnan(straight)
    weights = answered.sum(axis=0).astype(np.float64)
    total = np.where(answered, straight, 0.0).sum(axis=0)
    values = np.divide(total, weights, out=np.full(len(total), np.nan), where=weights > 0)
    raters = tuple(
        Rater(name, int(answered[row].sum()), 0.0, 1.0, 1.0, 1.0, 1.0)
        for row, name in enumerate(names)
    )
    return Consensus(raters, values, weights)


def calibrated_consensus(
    names: Sequence[str], shown: Floats, swapped: Bools, *, seed: int = 0
) -> Consensus:
    """Raters' answers mixed by how reliable they prove.

    `shown`: shape (raters, comparisons), P(the document shown first is better), NaN for no answer;
    `swapped`: same shape, whether the pair's second document was shown first.

    EM for one common factor (Rubin and Thayer 1982), the consensus p - 1/2 of each comparison. E:
    what is believed of p is the mean of the answers freed of bias and slope, weighted by precision
    = slope^2 / variance of the residual. M, by moments: bias and slope of the regression of answers
    on p, the variance of the residual, and from it kappa = mean of mu (1 - mu) / variance - 1. In
    the end slopes are scaled so that their mean by reliability is 1: the consensus speaks on the
    scale of the raters who are believed. Bias is told from preference by the swapped order.

    The value of a comparison is that weighted mean, held within [0, 1]. A slope below 0 is given as
    0: nobody is believed in reverse. Fewer than three raters cannot be told apart: they are only
    freed of bias. A rater counts among them from 30 answers to comparisons that another answered,
    too; with fewer it is believed as the middle one of those. Raises BadPreferences for
    answers outside [0, 1] and arrays of the wrong shape.
    """
    shown, swapped = _checked(names, shown, swapped)
    if not shown.size or np.isnan(shown).all():
        return plain_consensus(names, shown, swapped)
    raters = [_only_freed_of_bias(name, row) for name, row in zip(names, shown, strict=True)]
    columns = np.arange(shown.shape[1])
    if len(columns) > LARGEST_SAMPLE:
        columns = np.random.default_rng(seed).permutation(columns)[:LARGEST_SAMPLE]
    rows = _comparable(shown[:, columns])
    if len(rows) >= FEWEST_RATERS:
        own = [names[row] for row in rows]
        found = _by_moments(own, shown[rows][:, columns], swapped[rows][:, columns])
        raters = _with_measured(raters, dict(zip(rows, found, strict=True)))
    raters = [_with_suspicion(rater, raters) for rater in raters]
    values, weights = _mixed(raters, shown, swapped)
    return Consensus(tuple(raters), values, weights)


def _checked(names: Sequence[str], shown: Floats, swapped: Bools) -> tuple[Floats, Bools]:
    shown = np.asarray(shown, dtype=np.float64)
    swapped = np.asarray(swapped, dtype=np.bool_)
    if shown.ndim != 2 or shown.shape != swapped.shape or len(shown) != len(names):
        raise BadPreferences(
            f"{len(names)} raters, answers of shape {shown.shape} and orders of shape "
            f"{swapped.shape} do not fit together."
        )
    if ((shown < 0) | (shown > 1) | np.isinf(shown)).any():
        raise BadPreferences("An answer of a rater lies outside 0 to 1.")
    return shown, swapped


def _only_freed_of_bias(name: str, row: Floats) -> Rater:
    known = row[~np.isnan(row)]
    bias = float(known.mean()) - 0.5 if len(known) >= FEWEST_ANSWERS else 0.0
    return Rater(name, len(known), bias, 1.0, 1.0, 1.0, 1.0)


def _comparable(shown: Floats) -> list[int]:
    """Rows of the raters with enough answers that can be held against another's."""
    answered = ~np.isnan(shown)
    shared = answered & (answered.sum(axis=0) > 1)
    return [int(row) for row in np.flatnonzero(shared.sum(axis=1) >= FEWEST_ANSWERS)]


def _with_measured(raters: list[Rater], measured: dict[int, Rater]) -> list[Rater]:
    """`raters` with what was measured of some; the others are believed as the middle one of those
    who can be. Where nobody agrees with anybody (all answers are ties, say), they are as they
    were."""
    least = SUSPECT_RELIABILITY * max(rater.reliability for rater in measured.values())
    order = sorted(
        (rater for rater in measured.values() if rater.reliability >= least and rater.precision),
        key=lambda rater: rater.precision,
    )
    if not order:
        return raters
    middle = order[len(order) // 2]
    return [
        measured[row]
        if row in measured
        else replace(
            rater,
            kappa=middle.kappa,
            reliability=middle.reliability,
            precision=middle.precision,
        )
        for row, rater in enumerate(raters)
    ]


def _by_moments(names: Sequence[str], shown: Floats, swapped: Bools) -> list[Rater]:
    known = (~np.isnan(shown)).astype(np.float64)
    sign = np.where(swapped, -1.0, 1.0)
    # Everything speaks of the pair's first document, and around one half.
    told = np.where(known > 0, sign * (shown - 0.5), 0.0)
    counts = np.maximum(known.sum(axis=1), 1.0)
    spread = float((told**2).sum() / known.sum())
    bias, slope = np.zeros(len(names)), np.ones(len(names))
    residual = np.full(len(names), max(spread, SMALLEST_VARIANCE))
    mean, spread = 0.0, max(spread / 2, SMALLEST_VARIANCE)
    for _ in range(ROUNDS):
        before = np.concatenate([bias, slope])
        precision = slope / residual
        sharpness = 1.0 / spread + (known * (precision * slope)[:, None]).sum(axis=0)
        freed = known * (told - sign * bias[:, None])
        believed = (mean / spread + precision @ freed) / sharpness
        doubt = 1.0 / sharpness
        mean = float(believed.mean())
        bias, slope = _regressed(told, sign, known, believed, doubt, counts)
        left = known * (told - sign * bias[:, None] - slope[:, None] * believed)
        residual = ((left**2).sum(axis=1) + slope**2 * (known @ doubt)) / counts
        residual = np.maximum(residual, SMALLEST_VARIANCE)
        if np.abs(np.concatenate([bias, slope]) - before).max() < 1e-6:
            break
    explained = slope**2 * spread
    # mu (1 - mu) around its own mean: 1/4 - bias^2 - what the slope adds.
    room = np.maximum(0.25 - bias**2 - explained, SMALLEST_MU * (1 - SMALLEST_MU))
    return _on_one_scale(
        [
            Rater(
                name,
                int(known[row].sum()),
                float(bias[row]),
                float(slope[row]),
                max(float(room[row] / residual[row]) - 1.0, SMALLEST_KAPPA),
                float(explained[row] / (explained[row] + residual[row])),
                float(slope[row] ** 2 / residual[row]),
            )
            for row, name in enumerate(names)
        ]
    )


def _regressed(
    told: Floats, sign: Floats, known: Floats, believed: Floats, doubt: Floats, counts: Floats
) -> tuple[Floats, Floats]:
    """Least squares of told = sign x bias + slope x p for each rater, p known up to `doubt`."""
    crossed = (known * sign) @ believed
    square = known @ (believed**2 + doubt)
    with_sign = (known * sign * told).sum(axis=1)
    with_belief = told @ believed
    determinant = np.maximum(counts * square - crossed**2, 1e-12)
    slope = np.maximum((counts * with_belief - crossed * with_sign) / determinant, 0.0)
    return (with_sign - slope * crossed) / counts, slope


def _on_one_scale(raters: list[Rater]) -> list[Rater]:
    trust = np.array([rater.reliability * rater.answers for rater in raters])
    mean = float(trust @ [rater.slope for rater in raters]) / max(float(trust.sum()), 1e-12)
    if mean <= 0.0:
        return raters
    return [
        replace(rater, slope=rater.slope / mean, precision=rater.precision / mean**2)
        for rater in raters
    ]


def _with_suspicion(rater: Rater, raters: Sequence[Rater]) -> Rater:
    believed = max(other.reliability for other in raters)
    sentence = ""
    if rater.reliability < SUSPECT_RELIABILITY * believed:
        sentence = (
            f"The answers of {rater.name} have little to do with those of the other raters "
            f"({rater.reliability:.0%} explained, {believed:.0%} for the best): it hardly counts."
        )
    elif abs(rater.bias) > SUSPECT_BIAS:
        place = "first" if rater.bias > 0 else "second"
        sentence = f"{rater.name} favours the document shown {place}, by {abs(rater.bias):.2f}."
    return replace(rater, suspicion=sentence)


def _mixed(raters: Sequence[Rater], shown: Floats, swapped: Bools) -> tuple[Floats, Floats]:
    best = max(rater.precision for rater in raters)
    total, weights = np.zeros(shown.shape[1]), np.zeros(shown.shape[1])
    for row, rater in enumerate(raters):
        share = rater.precision / best if best > 0 else 0.0
        share = share if share >= SMALLEST_SHARE else 0.0
        freed = 0.5 + (shown[row] - 0.5 - rater.bias) / max(rater.slope, 0.1)
        straight = np.where(swapped[row], 1.0 - freed, freed)
        answered = ~np.isnan(straight)
        total += np.where(answered, straight, 0.0) * share
        weights += answered * share
    values = np.divide(total, weights, out=np.full(len(total), np.nan), where=weights > 0)
    return np.clip(values, 0.0, 1.0), weights
