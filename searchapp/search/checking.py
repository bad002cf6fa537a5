"""The BM25 index held against rank_bm25 over the stored passages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rank_bm25 import BM25Okapi

from rerank.ranking.analysis import terms
from searchapp.models import Collection, Passage
from searchapp.models.corpus import compose_indexed_text

from .access import operator
from .index import read_index
from .lexical import lexical_candidates

TOLERANCE = 1e-6
K1, B = 1.5, 0.75


@dataclass(frozen=True)
class Check:
    """`largest`: the largest difference between two scores. No `problems`: the index is right."""

    passages: int
    queries: int
    scores: int
    largest: float
    problems: Sequence[str]


def check_index(collection: Collection, queries: int, chance: random.Random) -> Check:
    """Analyses every passage again and compares all scores of sampled queries (okapi variant).

    Holds all terms of the collection in memory. Queries are runs of words of stored passages.
    """
    rows = (
        Passage.objects.filter(collection=collection)
        .order_by("pk")
        .values_list("pk", "document__title", "heading_path", "text")
    )
    ids: list[int] = []
    corpus: list[list[str]] = []
    for pk, title, headings, text in rows.iterator(chunk_size=2000):
        ids.append(pk)
        corpus.append(terms(compose_indexed_text(title, headings, text), collection.language))
    index, _ = read_index(collection, operator(), [])
    problems: list[str] = []
    alive = index.arrays.passage_ids
    if index.arrays.live is not None:
        alive = alive[index.arrays.live]
    if sorted(alive.tolist()) != ids:
        problems.append(f"The index holds {len(alive):,} passages, the collection {len(ids):,}.")
    filled = [words for words in corpus if words]
    if not filled:
        return Check(len(ids), 0, 0, 0.0, problems)
    oracle = BM25Okapi(corpus, k1=K1, b=B)
    largest, compared = 0.0, 0
    for _ in range(queries):
        words = chance.choice(filled)
        start = chance.randrange(len(words))
        query = words[start : start + chance.randint(1, 8)]
        difference, count = _difference(collection, query, ids, corpus, oracle)
        largest, compared = max(largest, difference), compared + count
        if not difference <= TOLERANCE:
            problems.append(f"{' '.join(query)!r}: scores differ by {difference:.3g}.")
    return Check(len(ids), queries, compared, largest, problems)


def _difference(
    collection: Collection,
    query: Sequence[str],
    ids: Sequence[int],
    corpus: Sequence[Sequence[str]],
    oracle: BM25Okapi,
) -> tuple[float, int]:
    """The largest difference of two scores (infinite when the passages differ), and how many."""
    wanted = set(query)
    scores = oracle.get_scores(query)
    expected = {
        each: float(score)
        for each, score, words in zip(ids, scores, corpus, strict=True)
        if not wanted.isdisjoint(words)
    }
    found = dict(
        lexical_candidates(collection, operator(), query, 10**9, variant="okapi", k1=K1, b=B)
    )
    if found.keys() != expected.keys():
        return float("inf"), len(expected)
    pairs = np.array([(found[each], expected[each]) for each in expected])
    return float(np.abs(pairs[:, 0] - pairs[:, 1]).max(initial=0.0)), len(expected)
