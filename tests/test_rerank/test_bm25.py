"""BM25 by hand and against rank_bm25."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from rerank.ranking.bm25 import lucene_idf, okapi_average_idf, okapi_idf, term_scores


def test_lucene_idf_by_hand() -> None:
    # 3 documents, 1 holds the term: ln(1 + 2.5 / 1.5) = ln(8/3)
    assert lucene_idf(3, 1) == pytest.approx(math.log(8 / 3))
    assert lucene_idf(3, 3) > 0


def test_one_score_by_hand() -> None:
    # idf 2, tf 3, length 20 of average 10, k1 1.2, b .5:
    # 2 * 3 / (3 + 1.2 * (.5 + .5 * 2)) = 6 / 4.8
    lucene = term_scores(np.array([3]), np.array([20]), 10.0, 2.0, 1.2, 0.5)
    assert lucene[0] == pytest.approx(1.25)
    okapi = term_scores(np.array([3]), np.array([20]), 10.0, 2.0, 1.2, 0.5, "okapi")
    assert okapi[0] == pytest.approx(1.25 * 2.2)


def test_a_term_in_more_than_half_of_the_documents_gets_the_floor() -> None:
    assert okapi_idf(10, 9, average_idf=1.6) == pytest.approx(0.4)
    assert okapi_idf(10, 0, average_idf=1.6) == 0.0
    assert okapi_average_idf(10, np.array([], dtype=int)) == 0.0


def test_no_length_no_average_no_terms() -> None:
    assert term_scores(np.array([]), np.array([]), 0.0, 1.0, 0.9, 0.4).shape == (0,)
    assert np.isfinite(term_scores(np.array([1]), np.array([0]), 0.0, 1.0, 0.9, 0.4)).all()


documents = st.lists(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=12), min_size=2, max_size=12
)


@given(
    documents,
    st.lists(st.sampled_from("abcdefgz"), max_size=6),
    st.floats(0.1, 3),
    st.floats(0, 1),
)
def test_okapi_is_rank_bm25(corpus: list[list[str]], query: list[str], k1: float, b: float) -> None:
    oracle = BM25Okapi(corpus, k1=k1, b=b)
    lengths = np.array([len(document) for document in corpus])
    vocabulary = sorted({term for document in corpus for term in document})
    df = {term: sum(term in document for document in corpus) for term in vocabulary}
    average = okapi_average_idf(len(corpus), np.array([df[term] for term in vocabulary]))
    scores = np.zeros(len(corpus))
    for term in query:
        frequencies = np.array([document.count(term) for document in corpus])
        idf = okapi_idf(len(corpus), df.get(term, 0), average)
        scores += term_scores(frequencies, lengths, float(lengths.mean()), idf, k1, b, "okapi")
    assert np.allclose(scores, oracle.get_scores(query), atol=1e-9)
