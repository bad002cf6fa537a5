"""Scores of all queries on one scale, and on that scale targets in [0, 1].

A fit per query leaves each query with mean 0, be its documents all useful or all useless. That this
is corrected with comparisons across queries is published, how is not: the formulas below are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

from rerank.errors import BadPreferences

from .links import THURSTONE, Floats, Link
from .pairing import Pairs, component_labels

# A normal prior of variance 1 on the offset of a query, on the scale of the scores.
DEFAULT_OFFSET_RIDGE = 1.0
WIDEST_SHIFT = 60.0


@dataclass(frozen=True)
class Bridges:
    """Comparisons across queries: P(document first[m] serves query pairs[m, 0] better than document
    second[m] serves query pairs[m, 1]) = values[m]. `margins[m]`: score of the first document
    within its query minus that of the second within its own. `weights` as in Preferences."""

    pairs: Pairs
    values: Floats
    margins: Floats
    weights: Floats | None = None


@dataclass(frozen=True)
class Offsets:
    """`values`: shape (queries,), to be added to the query's scores, mean 0. `deviations`: one
    standard error of each, the scores within queries taken as known. `components`: parts that the
    bridges leave unconnected; offsets of different parts compare by the prior alone."""

    values: Floats
    deviations: Floats
    components: int


def fit_offsets(
    queries: int,
    bridges: Bridges,
    *,
    link: Link = THURSTONE,
    ridge: float = DEFAULT_OFFSET_RIDGE,
) -> Offsets:
    """The offsets b that minimise, over the bridges m from query q to query r,

        - sum_m w_m [ p_m log F(x_m) + (1 - p_m) log F(-x_m) ] + ridge / 2 sum_q b_q^2,
        x_m = margin_m + b_q - b_r

    found by L-BFGS, so that a hundred thousand queries fit into memory. Deviations are the inverse
    roots of the diagonal of the curvature, which is a little too small: neighbours' own doubt is
    left out. Without bridges all offsets are 0. Raises BadPreferences as `fit_scores` does.
    """
    pairs = np.asarray(bridges.pairs, dtype=np.int64).reshape(-1, 2)
    values = np.asarray(bridges.values, dtype=np.float64)
    margins = np.asarray(bridges.margins, dtype=np.float64)
    weights = np.ones(len(pairs)) if bridges.weights is None else np.asarray(bridges.weights, float)
    _check(queries, pairs, values, margins, weights, ridge)
    if not queries:
        return Offsets(np.zeros(0), np.zeros(0), 0)

    def added(at_first: Floats, at_second: Floats) -> Floats:
        total = np.bincount(pairs[:, 0], at_first, queries)
        return np.asarray(total + np.bincount(pairs[:, 1], at_second, queries), dtype=np.float64)

    def loss_and_slope(offsets: Floats) -> tuple[float, Floats]:
        x = margins + offsets[pairs[:, 0]] - offsets[pairs[:, 1]]
        log_win, log_loss = link.logs(x)
        loss = -(weights * (values * log_win + (1 - values) * log_loss)).sum()
        up, down = link.slopes(x, log_win)[0], link.slopes(-x, log_loss)[0]
        pull = weights * ((1 - values) * down - values * up)
        return float(loss + ridge / 2 * offsets @ offsets), added(pull, -pull) + ridge * offsets

    found = minimize(
        loss_and_slope,
        np.zeros(queries),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-8},
    )
    offsets = np.asarray(found.x - found.x.mean(), dtype=np.float64)
    x = margins + offsets[pairs[:, 0]] - offsets[pairs[:, 1]]
    log_win, log_loss = link.logs(x)
    bend = values * link.slopes(x, log_win)[1] + (1 - values) * link.slopes(-x, log_loss)[1]
    curvature = added(weights * bend, weights * bend) + ridge
    components = int(component_labels(queries, pairs[weights > 0]).max()) + 1
    return Offsets(offsets, 1.0 / np.sqrt(curvature), components)


def targets(
    scores: Sequence[Floats],
    offsets: Floats,
    *,
    mean: float = 0.5,
    link: Link = THURSTONE,
) -> list[Floats]:
    """What a pointwise model learns: F(score + offset - c) per document, one array per query, with
    c such that the mean over all documents of all queries is `mean`.

    `mean` is the share of relevant documents among candidates where that is known from judgments;
    0.5 where it is not. The mapping is ours. Raises ValueError for a mean outside (0, 1).
    """
    if not 0.0 < mean < 1.0:
        raise ValueError(f"the mean target is {mean}, not between 0 and 1")
    shifted = [score + offset for score, offset in zip(scores, offsets, strict=True)]
    every = np.concatenate([np.zeros(0), *shifted])
    if not len(every):
        return shifted

    def excess(c: float) -> float:
        return float(link.probability(every - c).mean()) - mean

    low, high = float(every.min()) - WIDEST_SHIFT, float(every.max()) + WIDEST_SHIFT
    c = float(brentq(excess, low, high, xtol=1e-12))
    return [link.probability(each - c) for each in shifted]


def _check(
    queries: int,
    pairs: NDArray[np.int64],
    values: Floats,
    margins: Floats,
    weights: Floats,
    ridge: float,
) -> None:
    if not 0.0 < ridge < np.inf:
        raise BadPreferences(f"The ridge of the offsets is {ridge}; it should be above 0.")
    if not len(values) == len(margins) == len(weights) == len(pairs):
        raise BadPreferences(
            f"There are {len(pairs)} comparisons across queries, {len(values)} preferences, "
            f"{len(margins)} margins and {len(weights)} weights."
        )
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= queries):
        raise BadPreferences(f"A comparison names a query outside the {queries}.")
    if not ((values >= 0) & (values <= 1)).all() or not np.isfinite(margins).all():
        raise BadPreferences("A comparison across queries has a preference outside 0 to 1.")
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise BadPreferences("A comparison across queries has a weight that is no number.")
