"""BM25 on numpy arrays: the formulas, and nothing about where postings are kept.

Robertson & Zaragoza 2009. Two variants, which differ in the idf and in the factor (k1 + 1):
`lucene` as Lucene computes it since version 8, `okapi` as `rank_bm25.BM25Okapi` does.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Variant = Literal["lucene", "okapi"]
# rank_bm25's floor for the idf of terms in more than half of the documents, times the average idf.
OKAPI_EPSILON = 0.25


def lucene_idf(document_count: int, document_frequency: int) -> float:
    """ln(1 + (N - df + 0.5) / (df + 0.5)): positive for every df in 0..N."""
    return math.log1p((document_count - document_frequency + 0.5) / (document_frequency + 0.5))


def okapi_idf(
    document_count: int,
    document_frequency: int,
    average_idf: float,
    epsilon: float = OKAPI_EPSILON,
) -> float:
    """ln(N - df + 0.5) - ln(df + 0.5); where that is negative, epsilon x `average_idf` instead.

    `average_idf` is `okapi_average_idf` over all terms of the collection. An unknown term (df 0)
    has no postings to score; its idf is 0 as in rank_bm25.
    """
    if document_frequency <= 0:
        return 0.0
    idf = _raw_okapi_idf(document_count, document_frequency)
    return epsilon * average_idf if idf < 0 else idf


def okapi_average_idf(document_count: int, document_frequencies: NDArray[Any]) -> float:
    """The mean of ln(N - df + 0.5) - ln(df + 0.5) over one df per distinct term; 0 for none."""
    if not len(document_frequencies):
        return 0.0
    df = np.asarray(document_frequencies, dtype=np.float64)
    return float(np.mean(np.log(document_count - df + 0.5) - np.log(df + 0.5)))


def _raw_okapi_idf(document_count: int, document_frequency: int) -> float:
    return math.log(document_count - document_frequency + 0.5) - math.log(document_frequency + 0.5)


def term_scores(
    frequencies: NDArray[Any],
    lengths: NDArray[Any],
    average_length: float,
    idf: float,
    k1: float,
    b: float,
    variant: Variant = "lucene",
) -> NDArray[np.float64]:
    """One term's share of the score of each passage that holds it, shape (n,).

    idf * tf / (tf + k1 * (1 - b + b * length / average_length)), times (k1 + 1) for `okapi`.
    `frequencies` and `lengths` (in terms) align, both of shape (n,). Sum the shares over the terms
    of the query, once for each time a term stands there. A zero average counts as 1.
    """
    tf = np.asarray(frequencies, dtype=np.float64)
    relative = np.asarray(lengths, dtype=np.float64) / (average_length or 1.0)
    weight = idf * (k1 + 1.0) if variant == "okapi" else idf
    scores: NDArray[np.float64] = weight * tf / (tf + k1 * (1.0 - b + b * relative))
    return scores
