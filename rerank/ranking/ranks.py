"""An order of documents as scores, for rankers that only say who comes before whom."""

from __future__ import annotations

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
