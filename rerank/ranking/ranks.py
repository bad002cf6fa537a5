"""An order of documents as scores, for rankers that only say who comes before whom."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from rerank.types import FloatArray


def scores_by_rank(order: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """(logits, relevance) of n documents, given their places 0..n-1 best first; both shape (n,),
    in the order of the places.

    relevance = (n + 1 - rank) / (n + 1), rank from 1, and the logit is its inverse sigmoid: both
    fall with the rank, never tie, and mean nothing else.
    """
    count = len(order)
    relevance = np.zeros(count, dtype=np.float64)
    relevance[np.asarray(order, dtype=np.int64)] = np.arange(count, 0, -1) / (count + 1)
    logits = np.log(relevance) - np.log1p(-relevance)
    return logits.astype(np.float32), relevance.astype(np.float32)


def hold_to_order(
    order: Sequence[int], logits: FloatArray, relevance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Scores lowered where they must be for `order` (places, best first) to be theirs; shape (n,).

    Relevance falls or stays along the order. Logits fall strictly: where two would tie or be the
    wrong way round, the later one becomes the next float32 below the earlier.
    """
    along = np.asarray(order, dtype=np.int64)
    held_relevance = np.empty_like(relevance)
    held_relevance[along] = np.minimum.accumulate(relevance[along])
    held_logits = np.asarray(logits, dtype=np.float32).copy()
    for before, after in itertools.pairwise(along):
        if not held_logits[after] < held_logits[before]:
            held_logits[after] = np.nextafter(held_logits[before], np.float32(-np.inf))
    return held_logits, held_relevance
