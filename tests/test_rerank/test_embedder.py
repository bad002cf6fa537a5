"""Embedding with the real built-in weights."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from rerank.inference import embedder as module
from rerank.inference.embedder import QueriesFirst, SentenceEmbedder
from rerank.inference.models import embedder_facts

TEXTS = ["A short text.", "", "Ein Satz über Tomaten. " * 40, "violins", "A short text."]


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder(embedder_facts(""), torch.device("cpu"), torch.float32)


def test_vectors_equal_sentence_transformers_in_the_order_given(
    embedder: SentenceEmbedder,
) -> None:
    oracle = SentenceTransformer(str(embedder_facts("").directory), device="cpu")
    expected = oracle.encode(TEXTS, normalize_embeddings=True)
    vectors = embedder.embed_documents(TEXTS)
    assert vectors.shape == (5, 384) and vectors.dtype == np.float32
    assert np.allclose(vectors, expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_bfloat16_points_the_same_way(embedder: SentenceEmbedder) -> None:
    small = SentenceEmbedder(embedder_facts(""), torch.device("cpu"), torch.bfloat16)
    cosines = (small.embed_documents(TEXTS) * embedder.embed_documents(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.999


def test_no_texts_no_vectors(embedder: SentenceEmbedder) -> None:
    assert embedder.embed_queries([]).shape == (0, 384)


def test_documents_stand_back_while_a_query_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = QueriesFirst()
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 60)
    started = time.perf_counter()
    gate.stand_back()
    assert time.perf_counter() - started < 30, "nobody is at work"
    passed = threading.Event()
    with gate.query():
        thread = threading.Thread(target=lambda: (gate.stand_back(), passed.set()))
        thread.start()
        assert not passed.wait(0.1)
    assert passed.wait(30)
    thread.join()
    # Patience ends: documents are not starved by a stream of queries.
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    with gate.query():
        started = time.perf_counter()
        gate.stand_back()
        assert time.perf_counter() - started >= 0.04


def test_a_query_beside_bulk_work_comes_back_before_it(embedder: SentenceEmbedder) -> None:
    texts = [f"{i} " + "word " * 200 for i in range(60)]
    bulk = threading.Thread(target=embedder.embed_documents, args=[texts])
    bulk.start()
    vector = embedder.embed_queries(["how to water tomatoes"])
    assert bulk.is_alive(), "the query did not wait for the bulk"
    bulk.join()
    assert np.allclose(vector, embedder.embed_queries(["how to water tomatoes"]), atol=1e-5)
