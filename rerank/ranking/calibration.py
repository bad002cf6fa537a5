"""Calibration: monotone maps from a reranker's score to a probability of relevance.

Four kinds, in the order of their freedom: temperature, Platt and beta are logistic curves with one,
two and three parameters, isotonic is any non-decreasing curve. How well probabilities keep their
word is measured in `rerank.ranking.reliability`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Kind = Literal["temperature", "platt", "beta", "isotonic"]
KINDS: tuple[Kind, ...] = ("temperature", "platt", "beta", "isotonic")
MINIMUM_PAIRS = 10
# Keeps fits finite where one score separates the grades; negligible otherwise.
RIDGE = 1e-6
# Probabilities nearer to 0 or 1 than this count as this near where a logarithm is taken.
NEAREST = 1e-6


@dataclass(frozen=True)
class Platt:
    """p = sigmoid(slope * logit + intercept), slope >= 0 (Platt 1999).

    Temperature scaling (Guo et al. 2017) is the same map with intercept 0 and slope 1 / T.
    """

    slope: float
    intercept: float

    @property
    def is_constant(self) -> bool:
        """The judged pairs hold no rising relation of score and grade: scores tell nothing."""
        return self.slope == 0

    def apply(self, logits: ArrayLike, relevance: ArrayLike | None = None) -> Floats:
        """Probabilities in [0, 1], in the shape of the logits; `relevance` is not used."""
        return sigmoid(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)


@dataclass(frozen=True)
class Beta:
    """p = sigmoid(a ln(r) - b ln(1 - r) + c) of relevance r in [0, 1], a and b >= 0.

    (Kull, Silva Filho and Flach 2017.) The identity is a = b = 1, c = 0.
    """

    a: float
    b: float
    c: float

    @property
    def is_constant(self) -> bool:
        """The judged pairs hold no rising relation of score and grade: scores tell nothing."""
        return self.a == 0 and self.b == 0

    def apply(self, logits: ArrayLike, relevance: ArrayLike | None = None) -> Floats:
        """Probabilities in [0, 1], in the shape of the relevance, which must be given."""
        if relevance is None:
            raise ValueError("Beta calibration maps the relevance, which was not given.")
        columns = _beta_columns(np.asarray(relevance, dtype=np.float64))
        return sigmoid(columns @ np.array([self.a, self.b, self.c]))


@dataclass(frozen=True)
class Isotonic:
    """Linear between rising knots (logit, value), constant beyond the outermost ones."""

    scores: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def is_constant(self) -> bool:
        """The judged pairs hold no rising relation of score and grade: scores tell nothing."""
        return self.values[0] == self.values[-1]

    def apply(self, logits: ArrayLike, relevance: ArrayLike | None = None) -> Floats:
        """Probabilities in [0, 1], in the shape of the logits; `relevance` is not used."""
        at = np.asarray(logits, dtype=np.float64)
        return np.asarray(np.interp(at, self.scores, self.values), dtype=np.float64)


Calibration = Platt | Beta | Isotonic


@dataclass(frozen=True)
class Choice:
    """The calibration whose kind predicted queries it had not seen best, fitted on all pairs.

    `losses`: mean log loss of each kind over held-out pairs. `held_out`: the chosen kind's
    probability for each pair, by a fit that had not seen the pair's query. `warning`: a sentence
    when the map says less than it seems to, else "".
    """

    kind: Kind
    calibration: Calibration
    losses: Mapping[Kind, float]
    held_out: Floats
    warning: str = ""


# --- fits --------------------------------------------------------------------------------------


def fit_temperature(logits: ArrayLike, grades: ArrayLike) -> Platt:
    """Least log loss of sigmoid(logit / temperature); the slope is 1 / temperature, 0 for none."""
    s, g = _checked(logits, grades)
    return Platt(max(0.0, float(logistic(s[:, None], g)[0])), 0.0)


def fit_platt(logits: ArrayLike, grades: ArrayLike) -> Platt:
    """Least log loss over slope >= 0 and intercept; grades are probabilities in [0, 1]."""
    s, g = _checked(logits, grades)
    slope, intercept = logistic(np.column_stack([s, np.ones_like(s)]), g)
    if slope <= 0:
        return Platt(0.0, log_odds(float(g.mean())))
    return Platt(float(slope), float(intercept))


def fit_beta(relevance: ArrayLike, grades: ArrayLike) -> Beta:
    """Least log loss over a, b >= 0 and c; relevance nearer to 0 or 1 than NEAREST is moved."""
    r, g = _checked(relevance, grades)
    if r.min() < 0 or r.max() > 1:
        raise ValueError("Relevance must lie between 0 and 1.")
    columns = _beta_columns(r)
    # The loss is convex: its least value is inside, on the better edge, or at a = b = 0.
    candidates = [np.array([0.0, 0.0, log_odds(float(g.mean()))])]
    for free in ([0, 1, 2], [0, 2], [1, 2]):
        w = np.zeros(3)
        w[free] = logistic(columns[:, free], g)
        if (w[:2] >= 0).all():
            candidates.append(w)
    a, b, c = min(candidates, key=lambda w: logistic_loss(w, columns, g))
    return Beta(float(a), float(b), float(c))


def fit_isotonic(logits: ArrayLike, grades: ArrayLike) -> Isotonic:
    """Least squares over non-decreasing maps: pool adjacent violators, equal scores pooled."""
    s, g = _checked(logits, grades)
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
    scores: list[float] = []
    values: list[float] = []
    at = 0
    for value, _, size in blocks:
        # A level stretch needs its two ends only.
        for end in sorted({at, at + size - 1}):
            scores.append(float(knots[end]))
            values.append(min(1.0, max(0.0, value)))
        at += size
    return Isotonic(tuple(scores), tuple(values))


def fit(
    kind: Kind, logits: ArrayLike, grades: ArrayLike, relevance: ArrayLike | None = None
) -> Calibration:
    """The calibration of one kind; beta needs the relevance. Raises ValueError."""
    if kind == "beta":
        if relevance is None:
            raise ValueError("Beta calibration maps the relevance, which was not given.")
        return fit_beta(relevance, grades)
    fits: dict[str, Callable[[ArrayLike, ArrayLike], Calibration]] = {
        "temperature": fit_temperature,
        "platt": fit_platt,
        "isotonic": fit_isotonic,
    }
    return fits[kind](logits, grades)


# --- the choice --------------------------------------------------------------------------------


def choose_calibration(
    logits: ArrayLike,
    grades: ArrayLike,
    queries: Sequence[object],
    *,
    relevance: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Choice:
    """The best of KINDS by log loss on held-out queries (beta only with the relevance at hand).

    Whole queries are held out, for pairs of one query resemble each other. Of kinds that differ by
    less than one standard error of the paired difference over queries, the one with the fewest
    parameters is taken. `queries`: each pair's query. Raises ValueError for fewer than two queries,
    and what the fits raise.
    """
    s, g = _checked(logits, grades)
    r = None if relevance is None else np.asarray(relevance, dtype=np.float64)
    fold_of, group = folds_of(queries, folds, seed)
    if len(group) != len(s):
        raise ValueError("Each pair needs the query it belongs to.")
    kinds = [kind for kind in KINDS if kind != "beta" or r is not None]
    guesses = {kind: _held_out(kind, s, g, r, fold_of) for kind in kinds}
    costs = {kind: log_losses(guess, g) for kind, guess in guesses.items()}
    losses = {kind: float(cost.mean()) for kind, cost in costs.items()}
    best = min(kinds, key=lambda kind: losses[kind])
    chosen = next(kind for kind in kinds if _as_good(costs[kind], costs[best], group))
    calibration = fit(chosen, s, g, r)
    warning = ""
    if calibration.is_constant:
        warning = (
            "Higher scores were not judged more relevant, so every passage gets the same number."
        )
    return Choice(chosen, calibration, losses, guesses[chosen], warning)


def folds_of(queries: Sequence[object], folds: int, seed: int) -> tuple[NDArray[np.intp], Any]:
    """(fold of each pair, number of each pair's query); a query lies in one fold whole."""
    _, group = np.unique(np.asarray([str(query) for query in queries]), return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    if count < 2:
        raise ValueError("Holding queries out needs at least two of them.")
    places = np.random.default_rng(seed).permutation(count) % min(folds, count)
    return np.asarray(places[group], dtype=np.intp), group


def log_losses(probabilities: Floats, grades: Floats) -> Floats:
    """Each pair's log loss, probabilities kept NEAREST away from 0 and 1."""
    p = np.clip(probabilities, NEAREST, 1 - NEAREST)
    return np.asarray(-(grades * np.log(p) + (1 - grades) * np.log(1 - p)), dtype=np.float64)


def _held_out(
    kind: Kind, s: Floats, g: Floats, r: Floats | None, fold_of: NDArray[np.intp]
) -> Floats:
    guess = np.empty_like(g)
    for number in range(int(fold_of.max()) + 1):
        out = fold_of == number
        try:
            fitted = fit(kind, s[~out], g[~out], None if r is None else r[~out])
        except ValueError:  # too few left, or all of one grade
            guess[out] = g[~out].mean()
        else:
            guess[out] = fitted.apply(s[out], None if r is None else r[out])
    return guess


def _as_good(cost: Floats, best: Floats, group: NDArray[np.intp]) -> bool:
    """Whether the mean cost is within one standard error, over queries, of the best's."""
    sums = np.bincount(group, weights=cost - best)
    if not sums.any():
        return True
    error = float(sums.std(ddof=1)) * np.sqrt(len(sums))
    return bool(sums.sum() <= error)


# --- JSON --------------------------------------------------------------------------------------

_NAMES: dict[type, str] = {Platt: "platt", Beta: "beta", Isotonic: "isotonic"}


def to_json(calibration: Calibration) -> str:
    """The calibration as one JSON object; temperature is written as the Platt map it is."""
    return json.dumps({"kind": _NAMES[type(calibration)], **asdict(calibration)})


def from_json(text: str) -> Calibration:
    """The calibration that `to_json` wrote. Raises ValueError for anything else."""
    data = json.loads(text)
    kind = data.pop("kind", None) if isinstance(data, dict) else None
    try:
        if kind == "platt":
            return Platt(float(data["slope"]), float(data["intercept"]))
        if kind == "beta":
            return Beta(float(data["a"]), float(data["b"]), float(data["c"]))
        if kind == "isotonic":
            scores, values = map(float, data["scores"]), map(float, data["values"])
            return Isotonic(tuple(scores), tuple(values))
    except (KeyError, TypeError) as error:
        raise ValueError(f"This {kind} calibration is incomplete: {error}.") from error
    raise ValueError(f"There is no calibration of the kind {kind!r}.")


# --- the logistic fit, shared with rerank.ranking.confidence -----------------------------------


def sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), dtype=np.float64)


def log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def logistic_loss(w: Floats, x: Floats, g: Floats, ridge: float | Floats = RIDGE) -> float:
    """Summed log loss of sigmoid(x @ w) against grades in [0, 1], plus ridge w^2 / 2 summed.

    `ridge`: one number, or one per weight.
    """
    z = x @ w
    return float(np.sum(np.logaddexp(0, z) - g * z) + np.sum(ridge * w * w) / 2)


def logistic_gradient(w: Floats, x: Floats, g: Floats, ridge: float | Floats = RIDGE) -> Floats:
    """The gradient of `logistic_loss`."""
    return np.asarray(x.T @ (sigmoid(x @ w) - g) + ridge * w, dtype=np.float64)


def logistic(x: Floats, g: Floats, ridge: float | Floats = RIDGE) -> Floats:
    """The w of the least `logistic_loss`, by damped Newton steps."""
    w = np.zeros(x.shape[1])
    for _ in range(100):
        p = sigmoid(x @ w)
        curve = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        step = np.linalg.solve(curve, logistic_gradient(w, x, g, ridge))
        rate, now = 1.0, logistic_loss(w, x, g, ridge)
        while rate > 1e-8 and logistic_loss(w - rate * step, x, g, ridge) > now:
            rate /= 2
        w = w - rate * step
        if float(np.abs(rate * step).max()) < 1e-10:
            break
    return w


def _beta_columns(relevance: Floats) -> Floats:
    r = np.clip(relevance, NEAREST, 1 - NEAREST)
    return np.stack([np.log(r), -np.log1p(-r), np.ones_like(r)], axis=-1)


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
