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
# Shorter lists of postings are scored sooner than thought about.
PRUNE_FROM = 2_000


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
    pruned_to = None if filters else depth
    scores, matched = _score(collection, index, postings, repeats, variant, k1, b, pruned_to)
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
    depth: int | None,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """A score for every ordinal, and the ordinals that hold a term, ascending.

    With a `depth`, ordinals that cannot be among the best `depth` may be left out: rare terms are
    scored first, and once the common ones left cannot lift a passage over the worst of the best so
    far, they are looked up for the passages still in play only (MaxScore, Turtle & Flood 1995).
    """
    average_idf = average_okapi_idf(collection, index) if variant == "okapi" else 0.0
    weights: dict[str, float] = {}
    for term, found in postings.items():
        frequency = len(found.ordinals)
        if variant == "okapi":
            idf = okapi_idf(index.live_count, frequency, average_idf)
        else:
            idf = lucene_idf(index.live_count, frequency)
        weights[term] = repeats[term] * idf
    scores = np.zeros(len(index.arrays.passage_ids))
    matched = np.zeros(len(scores), np.bool_)
    may_prune = depth is not None and all(weight > 0 for weight in weights.values())
    # A share is below its weight, for okapi below (k1 + 1) times that.
    ceiling = k1 + 1.0 if variant == "okapi" else 1.0
    left = ceiling * sum(weights.values())
    alive: NDArray[np.intp] | None = None
    for term in sorted(weights, key=lambda term: (-weights[term], term)):
        if may_prune and depth is not None and len(postings[term].ordinals) > PRUNE_FROM:
            alive = _still_possible(scores, matched, alive, left, depth)
        ordinals, frequencies = _among(postings[term], alive)
        scores[ordinals] += term_scores(
            frequencies,
            index.arrays.lengths[ordinals],
            index.average_length,
            weights[term],
            k1,
            b,
            variant,
        )
        left -= ceiling * weights[term]
        if alive is None:
            matched[ordinals] = True
    return scores, np.flatnonzero(matched) if alive is None else alive


def _still_possible(
    scores: NDArray[np.float64],
    matched: NDArray[np.bool_],
    alive: NDArray[np.intp] | None,
    left: float,
    depth: int,
) -> NDArray[np.intp] | None:
    """The ordinals that may still be among the best `depth` when no other gains more than `left`;
    None while an ordinal without any score may be."""
    if left >= scores.max(initial=0.0):  # the usual answer, and a cheap one
        return alive
    candidates = np.flatnonzero(matched) if alive is None else alive
    if len(candidates) <= depth:
        return alive
    values = scores[candidates]
    worst = np.partition(values, len(values) - depth)[len(values) - depth]
    # Rounding must not cost a tie its place.
    bar = worst - left - 1e-9 * max(1.0, abs(worst))
    if bar <= 0:
        return alive
    possible: NDArray[np.intp] = candidates[values >= bar]
    return possible


def _among(
    postings: TermPostings, alive: NDArray[np.intp] | None
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """The postings of the ordinals still alive."""
    if alive is None:
        return postings.ordinals, postings.frequencies
    places = np.searchsorted(postings.ordinals, alive)
    places[places == len(postings.ordinals)] = 0
    places = places[postings.ordinals[places] == alive]
    return postings.ordinals[places], postings.frequencies[places]


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
