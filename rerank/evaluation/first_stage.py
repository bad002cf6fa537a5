"""First stages in memory: words, meaning, or both. Documents are places 0..n-1 of a list."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from rerank.ranking.analysis import query_terms, terms
from rerank.ranking.bm25 import (
    Variant,
    lucene_idf,
    okapi_average_idf,
    okapi_idf,
    term_scores,
)
from rerank.types import Embedder

FirstStage = Literal["bm25", "dense", "hybrid"]
# Documents embedded between two reports of progress.
_EMBEDDED_AT_ONCE = 512

Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


class WordIndex:
    """BM25 over the analysed terms of `texts`, scored exactly.

    Counts lie in a sparse matrix of documents x terms, so a query reads the columns of its terms.
    """

    def __init__(
        self,
        texts: Sequence[str],
        language: str = "en",
        *,
        variant: Variant = "lucene",
        k1: float = 0.9,
        b: float = 0.4,
        on_progress: Progress = _silent,
    ) -> None:
        self._language, self._variant, self._k1, self._b = language, variant, k1, b
        self._columns: dict[str, int] = {}
        columns, counts, starts = array("i"), array("i"), array("q", [0])
        for place, text in enumerate(texts, start=1):
            for term, count in Counter(terms(text, language)).items():
                columns.append(self._columns.setdefault(term, len(self._columns)))
                counts.append(count)
            starts.append(len(columns))
            on_progress(place, len(texts))
        self._lengths = _row_sums(np.asarray(counts), np.asarray(starts))
        self._matrix = _by_term(columns, counts, starts, len(self._columns))
        self._frequencies = np.diff(self._matrix.indptr)
        self._average_length = float(self._lengths.mean()) if len(texts) else 0.0
        self._average_idf = okapi_average_idf(len(texts), self._frequencies)

    def scores(self, query: str) -> NDArray[np.float64]:
        """Of every document, shape (documents,); 0 without any term of the query."""
        found = np.zeros(len(self._lengths), dtype=np.float64)
        for term, repeats in Counter(query_terms(query, self._language)).items():
            column = self._columns.get(term)
            if column is None:
                continue
            start, end = self._matrix.indptr[column : column + 2]
            places = self._matrix.indices[start:end]
            found[places] += repeats * term_scores(
                self._matrix.data[start:end],
                self._lengths[places],
                self._average_length,
                self._idf(int(self._frequencies[column])),
                self._k1,
                self._b,
                self._variant,
            )
        return found

    def search(self, query: str, depth: int) -> dict[int, float]:
        """Place -> score, best first, at most `depth`, only of documents with a term of the query;
        ties fall to the earlier document."""
        scores = self.scores(query)
        return _best(scores, np.flatnonzero(scores), depth)

    def _idf(self, frequency: int) -> float:
        if self._variant == "okapi":
            return okapi_idf(len(self._lengths), frequency, self._average_idf)
        return lucene_idf(len(self._lengths), frequency)


class MeaningIndex:
    """Cosines of unit vectors, all of them. Texts longer than the embedder reads are cut there."""

    def __init__(
        self, texts: Sequence[str], embedder: Embedder, *, on_progress: Progress = _silent
    ) -> None:
        self._embedder = embedder
        self._vectors = np.zeros((len(texts), embedder.dimension), dtype=np.float32)
        # Alike lengths together: then little of a batch is padding, and progress slows down evenly.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), _EMBEDDED_AT_ONCE):
            places = order[start : start + _EMBEDDED_AT_ONCE]
            self._vectors[places] = embedder.embed_documents([texts[place] for place in places])
            on_progress(start + len(places), len(texts))

    def search(self, query: str, depth: int) -> dict[int, float]:
        """Place -> cosine, best first, at most `depth`; ties fall to the earlier document."""
        scores = self._vectors @ self._embedder.embed_queries([query])[0]
        return _best(scores.astype(np.float64), np.arange(len(scores)), depth)


def _best(scores: NDArray[np.float64], places: NDArray[np.int64], depth: int) -> dict[int, float]:
    order = places[np.argsort(-scores[places], kind="stable")][:depth]
    return dict(zip(order.tolist(), scores[order].tolist(), strict=True))


def _row_sums(counts: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    sums: NDArray[np.int64] = ends[starts[1:]] - ends[starts[:-1]]
    return sums


def _by_term(columns: array[int], counts: array[int], starts: array[int], width: int) -> csc_matrix:
    """Documents x terms, each column's documents in order."""
    shape = (len(starts) - 1, width)
    rows = np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(np.asarray(starts)))
    triples = (np.asarray(counts), (rows, np.asarray(columns)))
    return csc_matrix(triples, shape=shape, dtype=np.int32)
