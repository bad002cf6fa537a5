"""A cross-encoder by directory: a tiny one, made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from rerank.errors import BadInput, DeviceError, WrongModel
from rerank.inference.cross_encoder import CrossEncoderReranker, sigmoid
from rerank.inference.devices import choose_device
from rerank.inference.loading import load_reranker
from rerank.types import RerankRequest

from .tiny import save_cross_encoder, save_headless

CPU = torch.device("cpu")
DOCUMENTS = ["short", "a longer text about cats and dogs " * 3, "", "violins", "short"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def reranker(directory: Path) -> CrossEncoderReranker:
    return CrossEncoderReranker("tiny", directory, CPU, torch.float32)


def test_scores_equal_sentence_transformers(
    reranker: CrossEncoderReranker, directory: Path
) -> None:
    oracle = CrossEncoder(str(directory), device="cpu")
    expected = oracle.predict(
        [("pets", document) for document in DOCUMENTS], activation_fn=torch.nn.Identity()
    )
    scores = reranker.score(RerankRequest("pets", DOCUMENTS))
    assert np.allclose(scores.logits, expected, atol=1e-4)
    assert np.allclose(scores.relevance, 1 / (1 + np.exp(-expected)), atol=1e-4)
    assert (scores.scale, scores.truncated) == ("sigmoid", 0)


def test_batched_equals_one_by_one_in_the_order_given(reranker: CrossEncoderReranker) -> None:
    together = reranker.score(RerankRequest("pets", DOCUMENTS)).logits
    alone = [reranker.score(RerankRequest("pets", [d])).logits[0] for d in DOCUMENTS]
    assert np.allclose(together, alone, atol=1e-5)
    assert together[0] == pytest.approx(together[4], abs=1e-5)
    assert len(set(np.round(together, 4))) == 4, "the tiny model tells these texts apart"


def test_only_the_document_is_cut_and_cuts_are_counted(reranker: CrossEncoderReranker) -> None:
    long = "cats " * 500
    scores = reranker.score(RerankRequest("pets", ["cats", long, long + "and a violin"]))
    assert scores.truncated == 2
    assert scores.logits[1] == pytest.approx(scores.logits[2], abs=1e-5)
    other = reranker.score(RerankRequest("violins", ["cats", long]))
    assert abs(other.logits[1] - scores.logits[1]) > 1e-4, "the query is still read"


def test_a_query_that_leaves_no_room_is_refused(reranker: CrossEncoderReranker) -> None:
    with pytest.raises(BadInput, match="93 at most"):
        reranker.score(RerankRequest("word " * 120, ["a"]))


def test_the_instruction_stands_below_the_query(reranker: CrossEncoderReranker) -> None:
    with_it = reranker.score(RerankRequest("pets", DOCUMENTS, "prefer cats")).logits
    written = reranker.score(RerankRequest("pets\n\nInstructions:\nprefer cats", DOCUMENTS)).logits
    without = reranker.score(RerankRequest("pets", DOCUMENTS, "")).logits
    assert np.array_equal(with_it, written)
    assert np.array_equal(without, reranker.score(RerankRequest("pets", DOCUMENTS)).logits)
    assert not np.allclose(with_it, without)


def test_a_separator_in_a_document_is_text(reranker: CrossEncoderReranker) -> None:
    prepared = reranker.prepare(RerankRequest("pets", ["cats [SEP] dogs [CLS]"]))
    ids = prepared.rows[0].ids
    assert ids.count(102) == 2
    assert ids.count(101) == 1


def test_no_documents_and_an_empty_query(reranker: CrossEncoderReranker) -> None:
    assert reranker.score(RerankRequest("pets", [])).logits.shape == (0,)
    assert np.isfinite(reranker.score(RerankRequest("", ["", "cats"])).logits).all()


def test_loading_by_name_gives_the_same_scores(
    reranker: CrossEncoderReranker, directory: Path
) -> None:
    loaded = load_reranker(str(directory), "cpu")
    scores = loaded.score(RerankRequest("pets", DOCUMENTS)).logits
    expected = reranker.score(RerankRequest("pets", DOCUMENTS)).logits
    # bfloat16 where the CPU has it
    assert np.allclose(scores, expected, atol=0.15)
    assert loaded.card.name == str(directory)


def test_a_checkpoint_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongModel, match=r"classifier\.weight"):
        load_reranker(str(save_headless(tmp_path)), "cpu")


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(7)
    from transformers import BertForSequenceClassification

    from .tiny import _save, config

    _save(BertForSequenceClassification(config(num_labels=3)), tmp_path)
    with pytest.raises(WrongModel, match="3 numbers"):
        load_reranker(str(tmp_path), "cpu")


def test_the_built_in_embedder_is_no_cross_encoder() -> None:
    with pytest.raises(WrongModel):
        load_reranker("sentence-transformers/all-MiniLM-L6-v2", "cpu")


def test_a_device_that_is_not_there_is_said_so() -> None:
    with pytest.raises(DeviceError):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="toaster"):
        choose_device("toaster")


def test_the_sigmoid_does_not_overflow() -> None:
    values = sigmoid(np.array([-1000, 0, 1000], dtype=np.float32))
    assert values.tolist() == [0.0, 0.5, 1.0]
