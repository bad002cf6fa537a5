"""Invented queries with a known truth, and raters of many kinds who judge them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rerank.zelo.links import THURSTONE
from rerank.zelo.pairing import Pairs, random_cycles, random_pairs, star

DOCUMENTS = 100
Array = np.ndarray[Any, Any]

# All of them with about k n / 2 comparisons, so that a row costs the same in each.
GRAPHS: dict[str, Callable[[int, int], Pairs]] = {
    "cycles": lambda degree, seed: random_cycles(DOCUMENTS, degree, seed),
    "random pairs": lambda degree, seed: random_pairs(DOCUMENTS, degree * DOCUMENTS // 2, seed),
    "star": lambda degree, seed: star(DOCUMENTS, degree // 2, seed),
}
BROKEN = ("dice", "always first", "reversed")
# How a logistic or a normal curve spreads answers over [0, 1].
SOFTNESS = 2.0
DICE_SHARE = 0.05


@dataclass(frozen=True)
class World:
    """One query. `shown`, `swapped`: shape (raters, pairs), as in `calibrated_consensus`."""

    noise: str
    kinds: tuple[str, ...]
    truth: Array
    pairs: Pairs
    shown: Array
    swapped: Array


def draw_worlds(
    queries: int,
    graph: str,
    degree: int,
    noise: str,
    kinds: Sequence[str],
    hard: bool,
    swap: bool = True,
) -> list[World]:
    """Query 7 has the same truth in every graph, noise of the same kind, and rows of the table."""
    return [
        _draw(query, GRAPHS[graph](degree, query), noise, tuple(kinds), hard, swap)
        for query in range(queries)
    ]


def _draw(
    query: int, pairs: Pairs, noise: str, kinds: tuple[str, ...], hard: bool, swap: bool
) -> World:
    fitted = noise == "as fitted"
    truth = _truth(np.random.default_rng([query, 1]), fitted)
    random = np.random.default_rng([query, zlib.crc32(repr((noise, kinds, hard, swap)).encode())])
    swapped = np.zeros((len(kinds), len(pairs)), dtype=bool)
    if swap:
        swapped = random.random(swapped.shape) < 0.5
    shown = np.zeros(swapped.shape)
    for row, kind in enumerate(kinds):
        worth = truth
        if not fitted:
            # What this rater thinks of each document, right or wrong, each time it meets it.
            worth = truth + 0.35 * random.standard_normal(DOCUMENTS)
        gap = worth[pairs[:, 0]] - worth[pairs[:, 1]]
        felt = np.where(swapped[row], -gap, gap) + _noise(random, len(pairs), fitted)
        shown[row] = _answers(kind, felt, random, hard)
        if not fitted:
            is_dice = random.random(len(pairs)) < DICE_SHARE
            shown[row, is_dice] = _as_vote(random.random(int(is_dice.sum())), hard)
    return World(noise, kinds, truth, pairs, shown, swapped)


def _truth(random: np.random.Generator, fitted: bool) -> Array:
    """Normal; or a few good documents above many that are about equally bad."""
    if fitted:
        return random.standard_normal(DOCUMENTS)
    worth = 0.25 * random.standard_normal(DOCUMENTS)
    good = random.permutation(DOCUMENTS)[: int(random.integers(5, 25))]
    worth[good] += random.exponential(1.5, len(good))
    return np.asarray(worth)


def _noise(random: np.random.Generator, count: int, fitted: bool) -> Array:
    """Variance 1/2 as Thurstone's link has it; or Student's t with two degrees of freedom, which
    has no variance."""
    if fitted:
        return np.sqrt(0.5) * random.standard_normal(count)
    return 0.5 * random.standard_t(2, count)


def _answers(kind: str, felt: Array, random: np.random.Generator, hard: bool) -> Array:
    """P(the document shown first is better) by a rater who felt this difference."""
    if kind == "always first":
        return np.ones(len(felt)) if hard else np.full(len(felt), 0.95)
    if kind == "dice":
        return _as_vote(random.random(len(felt)), hard)
    if kind == "reversed":
        felt = -felt
    if kind == "leaning":
        felt = felt + 0.8
    if kind == "noisy":
        felt = felt + 2.0 * random.standard_normal(len(felt))
    if kind == "mild":
        # Never far from undecided.
        return _as_vote(0.5 + 0.15 * np.tanh(felt), hard)
    return _as_vote(THURSTONE.probability(SOFTNESS * felt), hard)


def _as_vote(preference: Array, hard: bool) -> Array:
    return (preference > 0.5).astype(float) if hard else np.round(preference, 3)
