"""Preferences between the documents of a query -> one score per document, many queries at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv, dpotrf, dpotri

from rerank.errors import BadPreferences

from .links import THURSTONE, Floats, Link
from .pairing import Pairs, component_labels, is_strongly_connected

# Measured by benches.zelo: best or nearly so from 2 to 32 comparisons a document, where weaker
# priors lose much at few comparisons and stronger ones lose the spread of the best documents.
DEFAULT_RIDGE = 0.3
MAX_STEPS = 100
MAX_HALVINGS = 40
# What the loss may still fall by before the last step, in nats; that step squares the error.
TOLERANCE = 1e-7
SMALLEST_RIDGE = 1e-8
# A step must lower the loss by at least this share of what its slope promises (Armijo 1966).
SUFFICIENT = 1e-4


@dataclass(frozen=True)
class Preferences:
    """What is known about one query: `values[m]` = P(document pairs[m, 0] is better than document
    pairs[m, 1]), within [0, 1], soft or hard; `weights[m]`: how many judgments that stands for,
    None for one each."""

    documents: int
    pairs: Pairs
    values: Floats
    weights: Floats | None = None


@dataclass(frozen=True)
class ZeloScores:
    """`scores`: shape (documents,), their mean 0, on the scale of the link. `deviations`: one
    standard error of each. `components`: the parts the comparisons leave unconnected; above 1
    each part has the mean 0 of its own, and scores of different parts compare by the prior alone.
    `loss`: the minimised function. `steps`: Newton steps taken."""

    scores: Floats
    deviations: Floats
    components: int
    loss: float
    steps: int


def fit_scores(
    queries: Sequence[Preferences],
    *,
    link: Link = THURSTONE,
    ridge: float = DEFAULT_RIDGE,
    batch_size: int = 16,
) -> list[ZeloScores]:
    """The scores e that minimise, for each query by itself,

        - sum_m w_m [ p_m log F(e_a - e_b) + (1 - p_m) log F(e_b - e_a) ] + ridge / 2 sum_i e_i^2

    over the pairs m = (a, b) with preference p_m and weight w_m. The ridge is a normal prior of
    variance 1 / ridge: with it the minimum is finite for undefeated documents, unique for
    unconnected ones, and has the mean 0. The function is convex; damped Newton steps find its
    minimum, with the curvature matrix H (a weighted graph Laplacian + ridge) solved by Cholesky.
    Ridge 0 gives the maximum likelihood, with mean 0, where that exists.

    Deviations are the roots of the diagonal of P H^-1 P, P = I - 11'/n: the inverse curvature
    within scores of mean 0. They take each judgment for one independent draw, hence are too large
    for soft preferences that repeat well and too small for judges that err alike.

    Raises BadPreferences for values outside [0, 1], weights that are negative or no numbers, pairs
    of a document with itself or outside the query, and, at ridge 0, for unconnected documents and
    for any group of documents that never lost to the others.
    """
    if ridge != 0 and not SMALLEST_RIDGE <= ridge < np.inf:
        raise BadPreferences(f"The ridge is {ridge}; it should be 0, or {SMALLEST_RIDGE} or more.")
    checked = [_checked(query, place, ridge) for place, query in enumerate(queries)]
    fitted: dict[int, ZeloScores] = {}
    # Queries of like size together, so that little of a batch is padding.
    order = sorted(range(len(checked)), key=lambda place: checked[place].documents)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = _Batch([checked[place] for place in places], link, ridge)
        fitted.update(zip(places, batch.fit(), strict=True))
    return [fitted[place] for place in range(len(checked))]


def _checked(query: Preferences, place: int, ridge: float) -> Preferences:
    """The same with arrays of the right type and weights filled in."""
    where = f"Query {place}"
    pairs = np.asarray(query.pairs, dtype=np.int64).reshape(-1, 2)
    values = np.asarray(query.values, dtype=np.float64)
    weights = np.ones(len(pairs)) if query.weights is None else np.asarray(query.weights, float)
    if values.shape != (len(pairs),) or weights.shape != (len(pairs),):
        raise BadPreferences(
            f"{where} has {len(pairs)} pairs, {values.size} preferences and {weights.size} weights."
        )
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= query.documents):
        raise BadPreferences(f"{where} compares a document outside its {query.documents}.")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise BadPreferences(f"{where} compares a document with itself.")
    # Written so that a value that is no number fails too.
    if not ((values >= 0) & (values <= 1)).all():
        raise BadPreferences(f"{where} has a preference outside 0 to 1.")
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise BadPreferences(f"{where} has a weight that is negative or no number.")
    if ridge == 0 and query.documents > 1:
        _check_for_a_maximum(query.documents, pairs, weights * values, weights - weights * values)
    return Preferences(query.documents, pairs, values, weights)


def _check_for_a_maximum(documents: int, pairs: Pairs, wins: Floats, losses: Floats) -> None:
    """Without a prior a finite maximum exists only where every document is reached from every
    other along wins (Ford 1957)."""
    parts = _parts(documents, pairs[wins + losses > 0])
    if parts > 1:
        raise BadPreferences(
            f"The comparisons leave {parts} parts of a query unconnected: compare more pairs, or "
            "fit with a ridge above 0."
        )
    beaten = np.concatenate([pairs[wins > 0], pairs[losses > 0][:, ::-1]])
    if not is_strongly_connected(documents, beaten):
        raise BadPreferences(
            "Some documents of a query never lost to the others, so no finite score fits them: "
            "fit with a ridge above 0."
        )


def _parts(documents: int, pairs: Pairs) -> int:
    return int(component_labels(documents, pairs).max()) + 1 if documents else 0


class _Batch:
    """Queries padded to the same number of documents and of pairs; padding weighs nothing."""

    def __init__(self, queries: Sequence[Preferences], link: Link, ridge: float) -> None:
        self.queries = queries
        self.link = link
        self.ridge = ridge
        count = len(queries)
        self.size = max(1, *(query.documents for query in queries))
        width = max(1, *(len(query.pairs) for query in queries))
        self.pairs = np.zeros((count, width, 2), dtype=np.int64)
        self.wins = np.zeros((count, width))
        self.losses = np.zeros((count, width))
        for row, query in enumerate(queries):
            assert query.weights is not None
            filled = slice(0, len(query.pairs))
            self.pairs[row, filled] = query.pairs
            self.wins[row, filled] = query.weights * query.values
            self.losses[row, filled] = query.weights * (1.0 - query.values)
        sizes = np.array([query.documents for query in queries])
        self.real = (np.arange(self.size) < sizes[:, None]).astype(np.float64)
        self.sizes = np.maximum(sizes, 1)
        # Where each pair stands in the upper triangle of a matrix.
        self.cells = self.pairs.min(axis=2, initial=self.size) * self.size
        self.cells += self.pairs.max(axis=2, initial=0)

    def fit(self) -> Iterator[ZeloScores]:
        count = len(self.queries)
        scores = np.zeros((count, self.size))
        steps = np.zeros(count, dtype=np.int64)
        loss = self._loss(np.arange(count), scores)
        active = np.arange(count)
        for _ in range(MAX_STEPS):
            gradient, curvature = self._slopes(active, scores[active])
            step = -_solve(curvature, gradient)
            promised = -(step * gradient).sum(axis=1)
            steps[active] += 1
            scores[active], loss[active] = self._search(
                active, scores[active], step, promised, loss[active]
            )
            active = active[promised / 2 > TOLERANCE]
            if not len(active):
                break
        scores -= (scores.sum(axis=1) / self.sizes)[:, None] * self.real
        deviations = self._deviations(scores)
        for row, query in enumerate(self.queries):
            assert query.weights is not None
            yield ZeloScores(
                scores[row, : query.documents].copy(),
                deviations[row, : query.documents].copy(),
                _parts(query.documents, query.pairs[query.weights > 0]),
                float(loss[row]),
                int(steps[row]),
            )

    def _search(
        self,
        rows: NDArray[np.int64],
        scores: Floats,
        step: Floats,
        promised: Floats,
        loss: Floats,
    ) -> tuple[Floats, Floats]:
        """Scores and losses after the step, halved for each query until its loss falls enough."""
        length = np.ones(len(rows))
        best, lowered = scores.copy(), loss.copy()
        waiting = np.arange(len(rows))
        for _ in range(MAX_HALVINGS):
            tried = scores[waiting] + length[waiting, None] * step[waiting]
            reached = self._loss(rows[waiting], tried)
            # Rounding of the loss itself may hide the last bit of progress.
            slack = 1e-14 * (1.0 + np.abs(loss[waiting]))
            wanted = loss[waiting] - SUFFICIENT * length[waiting] * promised[waiting]
            enough = reached <= wanted + slack
            best[waiting[enough]], lowered[waiting[enough]] = tried[enough], reached[enough]
            waiting = waiting[~enough]
            if not len(waiting):
                break
            length[waiting] /= 2
        return best, lowered

    def _differences(self, rows: NDArray[np.int64], scores: Floats) -> Floats:
        first = np.take_along_axis(scores, self.pairs[rows, :, 0], axis=1)
        return np.asarray(first - np.take_along_axis(scores, self.pairs[rows, :, 1], axis=1))

    def _loss(self, rows: NDArray[np.int64], scores: Floats) -> Floats:
        """Shape (rows,)."""
        difference = self._differences(rows, scores)
        wins, losses = self.wins[rows], self.losses[rows]
        log_win, log_loss = self.link.logs(difference)
        likelihood = (wins * log_win + losses * log_loss).sum(axis=1)
        return np.asarray(-likelihood + self.ridge / 2 * (scores**2).sum(axis=1))

    def _slopes(self, rows: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
        """Gradient, shape (rows, size), and curvature, shape (rows, size, size)."""
        difference = self._differences(rows, scores)
        wins, losses = self.wins[rows], self.losses[rows]
        log_win, log_loss = self.link.logs(difference)
        up, up_curve = self.link.slopes(difference, log_win)
        down, down_curve = self.link.slopes(-difference, log_loss)
        pull = losses * down - wins * up
        gradient = self._at_first(rows, pull) - self._at_second(rows, pull) + self.ridge * scores
        return gradient, self._laplacian(rows, wins * up_curve + losses * down_curve)

    def _at_first(self, rows: NDArray[np.int64], values: Floats) -> Floats:
        """Values of pairs added up at their first documents, shape (rows, size)."""
        return self._added(rows, self.pairs[rows, :, 0], values)

    def _at_second(self, rows: NDArray[np.int64], values: Floats) -> Floats:
        return self._added(rows, self.pairs[rows, :, 1], values)

    def _added(self, rows: NDArray[np.int64], places: NDArray[np.int64], values: Floats) -> Floats:
        base = (np.arange(len(rows)) * self.size)[:, None]
        total = np.bincount((base + places).ravel(), values.ravel(), len(rows) * self.size)
        return np.asarray(total.reshape(len(rows), self.size))

    def _laplacian(self, rows: NDArray[np.int64], stiffness: Floats) -> Floats:
        """The matrices of sum over pairs of stiffness (x_a - x_b)^2, + ridge: upper triangles.

        Padding has 1 on its diagonal. Without ridge the first document has it too, which fixes
        the mean that no comparison fixes.
        """
        square = self.size**2
        base = (np.arange(len(rows)) * square)[:, None]
        places = (base + self.cells[rows]).ravel()
        joined = np.bincount(places, -stiffness.ravel(), len(rows) * square).astype(np.float64)
        matrix = joined.reshape(len(rows), self.size, self.size)
        diagonal = np.einsum("rii->ri", matrix)
        diagonal[:] = self._at_first(rows, stiffness) + self._at_second(rows, stiffness)
        diagonal += self.ridge + (1.0 - self.real[rows])
        if self.ridge == 0:
            diagonal[:, 0] += 1.0
        return matrix

    def _deviations(self, scores: Floats) -> Floats:
        _, curvature = self._slopes(np.arange(len(self.queries)), scores)
        found = np.zeros_like(scores)
        for row, query in enumerate(self.queries):
            count = query.documents
            if count:
                inverse = _inverse(curvature[row, :count, :count])
                # The diagonal of P A P.
                means = inverse.mean(axis=1)
                variance = np.diag(inverse) - 2 * means + means.mean()
                found[row, :count] = np.sqrt(np.maximum(variance, 0.0))
        return found


def _solve(curvature: Floats, gradient: Floats) -> Floats:
    """curvature^-1 gradient for each query, by Cholesky; `curvature` is overwritten."""
    solved = np.empty_like(gradient)
    for row in range(len(gradient)):
        # LAPACK reads by columns, so the upper triangle is its lower one.
        _, solved[row], trouble = dposv(curvature[row].T, gradient[row], lower=1, overwrite_a=1)
        if trouble:
            raise BadPreferences("The curvature of a fit is not positive: use a larger ridge.")
    return solved


def _inverse(curvature: Floats) -> Floats:
    factor, trouble = dpotrf(curvature.T, lower=1)
    lower, _ = dpotri(factor, lower=1)
    if trouble:
        raise BadPreferences("The curvature of a fit is not positive: use a larger ridge.")
    lower = np.tril(lower)
    return np.asarray(lower + np.tril(lower, -1).T, dtype=np.float64)
