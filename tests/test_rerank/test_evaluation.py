"""The in-memory first stages and the before-and-after report, on a folder made here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from rerank.errors import BadInput
from rerank.evaluation.beir import read_corpus, read_folder
from rerank.evaluation.evaluate import Settings, evaluate_folder
from rerank.evaluation.first_stage import MeaningIndex, WordIndex
from rerank.ranking.analysis import query_terms, terms
from rerank.types import FloatArray, ModelCard, RerankRequest, RerankScores

CORPUS = {
    "D1": ("Tomatoes", "Water the tomato plants each morning before the sun is high."),
    "D2": ("Violins", "The violin has four strings tuned in perfect fifths."),
    "D3": ("Tomato soup", "Tomato, tomato and water: simmer the tomatoes in water."),
    "D4": ("", "A bicycle chain wants oil after riding in the rain."),
}
QUERIES = {"Q1": "when to water tomatoes", "Q2": "how many strings has a violin", "Q3": "unjudged"}
QRELS = [("Q1", "D1", 2), ("Q1", "D3", 0), ("Q2", "D2", 1)]
FIGURES = ["ndcg@10", "recall@100", "mrr@10", "queries", "judged@10"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        for key, (title, text) in CORPUS.items():
            file.write(json.dumps({"_id": key, "title": title, "text": text}) + "\n")
    rows = [json.dumps({"_id": key, "text": text}) for key, text in QUERIES.items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in QRELS)]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


class WordsInCommon:
    """A reranker to work by hand: the share of the document's words that the query holds."""

    card = ModelCard("words in common", "", "CPU", "float32")

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign
        self.requests: list[RerankRequest] = []

    def score(self, request: RerankRequest) -> RerankScores:
        self.requests.append(request)
        query = set(terms(request.query, "en"))
        shares = [
            self.sign * sum(term in query for term in terms(text, "en")) / max(len(text.split()), 1)
            for text in request.documents
        ]
        values = np.array(shares, dtype=np.float32)
        return RerankScores(values, values, "sigmoid", truncated=1, tokens=5, notes=("A note.",))


class Letters:
    """An embedder to work by hand: how often each letter stands in the text."""

    card = ModelCard("letters", "", "CPU", "float32")
    name = "letters"
    dimension = 26

    def embed_documents(self, texts: Any) -> FloatArray:
        counts = [[text.lower().count(chr(97 + i)) + 1e-3 for i in range(26)] for text in texts]
        rows = np.array(counts, dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    embed_queries = embed_documents


def test_every_system_has_the_same_figures_and_the_last_two_are_compared(folder: Path) -> None:
    report = evaluate_folder(read_folder(folder), WordsInCommon(), Letters(), Settings())
    assert list(report["systems"]) == ["bm25", "dense", "hybrid", "reranked"]
    for figures in report["systems"].values():
        assert list(figures) == FIGURES and figures["queries"] == 2
    comparison = report["comparison"]
    assert (comparison["before"], comparison["after"]) == ("hybrid", "reranked")
    for name in ("ndcg@10", "recall@100", "mrr@10"):
        assert list(comparison[name]) == ["difference", "low", "high", "p_value"]
    assert report["pairs"] == 8 and report["truncated"] == 2 and report["tokens"] == 10
    assert report["notes"] == ["A note."]
    json.dumps(report)


def test_figures_by_hand_before_and_after_a_reranker_that_turns_the_order(folder: Path) -> None:
    """For Q1 BM25 finds D3 before D1; D1 alone is relevant. For Q2 it finds D2 alone."""
    settings = Settings(first_stage="bm25")
    turned = evaluate_folder(read_folder(folder), WordsInCommon(sign=1.0), None, settings)
    before, after = turned["systems"]["bm25"], turned["systems"]["reranked"]
    assert before["mrr@10"] == after["mrr@10"] == 0.75  # (1/2 + 1) / 2
    assert before["ndcg@10"] == round((1 / np.log2(3) + 1) / 2, 4)
    assert before["judged@10"] == 1.0
    better = evaluate_folder(read_folder(folder), WordsInCommon(sign=-1.0), None, settings)
    assert better["systems"]["reranked"]["mrr@10"] == 1.0
    assert better["comparison"]["mrr@10"]["difference"] == 0.25
    assert better["comparison"]["recall@100"]["difference"] == 0.0


def test_the_reranker_gets_the_first_documents_with_priors_and_the_rest_follows(
    folder: Path,
) -> None:
    reranker = WordsInCommon(sign=-1.0)
    settings = Settings(first_stage="bm25", depth=1, instruction="Gardens only.")
    report = evaluate_folder(read_folder(folder).limited(1), reranker, None, settings)
    (request,) = reranker.requests
    assert request.query == QUERIES["Q1"] and request.instruction == "Gardens only."
    assert list(request.documents) == [
        "Tomato soup Tomato, tomato and water: simmer the tomatoes in water."
    ]
    assert request.priors == [1.0]
    assert report["systems"]["bm25"] == report["systems"]["reranked"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"depth": 0}, "at least 1"), ({"dense_weight": 1.5}, "not within 0 and 1")],
)
def test_settings_out_of_range_are_a_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Settings(**changes)


class Refuses(WordsInCommon):
    def score(self, request: RerankRequest) -> RerankScores:
        raise BadInput("The query is too long.")


def test_a_query_that_cannot_be_reranked_is_named(folder: Path) -> None:
    with pytest.raises(BadInput, match="The query Q1 cannot be reranked: The query is too long"):
        evaluate_folder(read_folder(folder), Refuses(), None, Settings(first_stage="bm25"))


def test_a_broken_archive_is_a_sentence(folder: Path) -> None:
    path = folder / "corpus.jsonl.gz"
    content = bytearray(path.read_bytes())
    content[12:40] = bytes(28)
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        read_corpus(path)


def test_a_dense_stage_needs_an_embedder(folder: Path) -> None:
    with pytest.raises(BadInput, match="dense needs an embedder"):
        evaluate_folder(read_folder(folder), WordsInCommon(), None, Settings(first_stage="dense"))


WORDS = ["tea", "cup", "milk", "river", "stone", "the", "tree"]
words = st.lists(st.sampled_from(WORDS), max_size=10)


@given(st.lists(words.filter(bool), min_size=2, max_size=8), words)
def test_the_word_index_scores_as_rank_bm25_does(
    documents: list[list[str]], query: list[str]
) -> None:
    texts = [" ".join(document) for document in documents]
    oracle = BM25Okapi([terms(text, "en") for text in texts], k1=0.9, b=0.4)
    index = WordIndex(texts, "en", variant="okapi", k1=0.9, b=0.4)
    asked = " ".join(query)
    expected = oracle.get_scores(query_terms(asked, "en"))
    np.testing.assert_allclose(index.scores(asked), expected, atol=1e-9)


def test_the_best_documents_come_first_and_ties_fall_to_the_earlier() -> None:
    index = WordIndex(["a tea", "a cup", "a tea", "tea tea tea"], "en")
    assert list(index.search("tea", 10)) == [3, 0, 2]
    assert list(index.search("tea", 2)) == [3, 0]
    assert index.search("river", 5) == {} and index.search("", 5) == {}
    assert WordIndex([], "en").search("tea", 5) == {}


def test_vectors_return_to_the_places_of_their_texts() -> None:
    index = MeaningIndex(["zzzz" * 9, "abc", "xy"], Letters())
    found = index.search("cab", 2)
    assert next(iter(found)) == 1 and found[1] == pytest.approx(1.0, abs=1e-5)
    assert len(found) == 2


def test_a_corpus_without_documents_or_bodies(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": 1, "title": null, "text": "a"}\n{"_id": 2, "text": null}\n')
    assert read_corpus(path) == {"1": "a", "2": ""}
    path.write_text("\n")
    with pytest.raises(BadInput, match="holds no documents"):
        read_corpus(path)
    path.write_bytes(b'{"_id": 1, "text": "\xff"}\n')
    with pytest.raises(BadInput, match="not UTF-8"):
        read_corpus(path)
