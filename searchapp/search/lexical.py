"""The lexical leg: BM25 over the collection's postings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerank.ranking.bm25 import Variant, lucene_idf, okapi_idf, term_scores
from searchapp.models import Collection
from searchapp.models.corpus import AnyUser

from .filters import NO_FILTERS, Filters, matching_passages
from .index import Index, TermPostings, average_okapi_idf, read_index

# Candidates asked about per statement when a filter thins them out, first and at most.
FIRST_FILTERED, MOST_FILTERED = 1_000, 20_000


def lexical_candidates(
    collection: Collection,
    user: AnyUser,
    query_terms: Sequence[str],
    depth: int,
    *,
    variant: Variant = "lucene",
    k1: float = 0.9,
    b: float = 0.4,
    filters: Filters = NO_FILTERS,
) -> list[tuple[int, float]]:
    """(passage id, BM25 score), best first, at most `depth`; ties fall to the smaller id.

    Only passages that hold a query term, of a collection the user may see, that pass the filters. A
    term that stands twice in the query counts twice. N, average length and document frequency are
    those of the whole collection, whatever the filters.
    """
    if not query_terms or depth <= 0:
        return []
    repeats = Counter(query_terms)
    index, postings = read_index(collection, user, list(repeats))
    if not postings:
        return []
    scores, matched = _score(collection, index, postings, repeats, variant, k1, b)
    if not filters:
        chosen = _best(index, scores, matched, depth)
    else:
        chosen = _best_filtered(collection, user, index, scores, matched, depth, filters)
    ids = index.arrays.passage_ids[chosen].tolist()
    return list(zip(ids, scores[chosen].tolist(), strict=True))


def _score(
    collection: Collection,
    index: Index,
    postings: dict[str, TermPostings],
    repeats: Counter[str],
    variant: Variant,
    k1: float,
    b: float,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """A score for every ordinal, and the ordinals that hold a term, ascending."""
    scores = np.zeros(len(index.arrays.passage_ids))
    matched = np.zeros(len(scores), np.bool_)
    average_idf = average_okapi_idf(collection, index) if variant == "okapi" else 0.0
    for term, count in repeats.items():
        found = postings.get(term)
        if found is None:
            continue
        frequency = len(found.ordinals)
        if variant == "okapi":
            idf = okapi_idf(index.live_count, frequency, average_idf)
        else:
            idf = lucene_idf(index.live_count, frequency)
        scores[found.ordinals] += term_scores(
            found.frequencies,
            index.arrays.lengths[found.ordinals],
            index.average_length,
            count * idf,
            k1,
            b,
            variant,
        )
        matched[found.ordinals] = True
    return scores, np.flatnonzero(matched)


def _best(
    index: Index, scores: NDArray[np.float64], matched: NDArray[np.intp], depth: int
) -> NDArray[np.intp]:
    """The `depth` best ordinals in order (all of those equal to the last are compared by id)."""
    values = scores[matched]
    if len(matched) > depth:
        last = np.partition(values, len(values) - depth)[len(values) - depth]
        kept = values >= last
        matched, values = matched[kept], values[kept]
    order = np.lexsort((index.arrays.passage_ids[matched], -values))
    return matched[order][:depth]


def _best_filtered(
    collection: Collection,
    user: AnyUser,
    index: Index,
    scores: NDArray[np.float64],
    matched: NDArray[np.intp],
    depth: int,
    filters: Filters,
) -> NDArray[np.intp]:
    """As `_best`, asking the database block by block, best first, which ones pass."""
    order = _best(index, scores, matched, len(matched))
    kept: list[NDArray[np.intp]] = []
    count, start, size = 0, 0, FIRST_FILTERED
    while start < len(order) and count < depth:
        block = order[start : start + size]
        ids = index.arrays.passage_ids[block]
        passing = matching_passages(collection, user, filters, ids.tolist())
        passed = block[np.isin(ids, passing)]
        kept.append(passed)
        count += len(passed)
        start += size
        size = min(4 * size, MOST_FILTERED)
    return np.concatenate(kept)[:depth] if kept else order[:0]
