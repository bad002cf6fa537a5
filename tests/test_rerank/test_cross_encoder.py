"""A cross-encoder by directory: a tiny one, made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from rerank.errors import BadInput, DeviceError, ModelNotFound, WrongModel
from rerank.inference.cross_encoder import CrossEncoderReranker, sigmoid
from rerank.inference.devices import choose_device
from rerank.inference.loading import load_reranker
from rerank.types import RerankRequest

from .tiny import save_cross_encoder, save_headless
from .tiny_models import save_deberta, save_modern_bert, save_roberta
from .tiny_qwen import change_weights

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


@pytest.mark.parametrize("save", [save_roberta, save_modern_bert, save_deberta])
def test_other_encoders_score_as_in_sentence_transformers(
    tmp_path: Path, save: Callable[[Path], Path]
) -> None:
    own = CrossEncoderReranker("tiny", save(tmp_path), CPU, torch.float32)
    oracle = CrossEncoder(str(tmp_path), device="cpu")
    documents = [*DOCUMENTS, "cats " * 500, "Schöne Grüße, 世界 🙂"]
    pairs = [("what about pets?", document) for document in documents]
    expected = oracle.predict(pairs, activation_fn=torch.nn.Identity())
    scores = own.score(RerankRequest("what about pets?", documents))
    assert np.allclose(scores.logits, expected, atol=1e-5)
    assert scores.truncated == 1
    assert len(set(np.round(scores.logits, 4))) == 6


def test_no_input_is_longer_than_there_are_positions(tmp_path: Path) -> None:
    path = save_roberta(tmp_path) / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))
    own = CrossEncoderReranker("tiny", tmp_path, CPU, torch.float32)
    assert own.prepare(RerankRequest("pets", ["cats " * 500])).lengths == [128]
    assert own.score(RerankRequest("pets", ["cats " * 500])).truncated == 1


def test_the_prompt_that_the_files_name_stands_before_the_query(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path)
    CrossEncoder(
        str(tmp_path), device="cpu", prompts={"ask": "question: "}, default_prompt_name="ask"
    ).save_pretrained(str(tmp_path / "saved"))
    own = CrossEncoderReranker("tiny", tmp_path / "saved", CPU, torch.float32)
    oracle = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    expected = oracle.predict(
        [("pets", document) for document in DOCUMENTS], activation_fn=torch.nn.Identity()
    )
    assert np.allclose(own.score(RerankRequest("pets", DOCUMENTS)).logits, expected, atol=1e-5)


def test_a_published_activation_is_the_relevance(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.activation.Hardsigmoid"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    own = CrossEncoderReranker("tiny", tmp_path, CPU, torch.float32)
    scores = own.score(RerankRequest("pets", DOCUMENTS))
    assert scores.scale == "published"
    assert np.allclose(scores.relevance, np.clip(scores.logits / 6 + 0.5, 0, 1), atol=1e-5)


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


def test_a_weight_of_the_body_that_is_missing_is_said_so(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path)
    change_weights(tmp_path, {"bert.encoder.layer.1.output.dense.weight": None})
    with pytest.raises(ModelNotFound, match=r"layer\.1\.output\.dense.*Download"):
        load_reranker(str(tmp_path), "cpu")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path)
    change_weights(tmp_path, {"classifier.weight": torch.full((1, 32), float("nan"))})
    with pytest.raises(WrongModel, match=r"classifier\.weight holds values that are no numbers"):
        load_reranker(str(tmp_path), "cpu")


@pytest.mark.parametrize("damage", ["missing", "cut", "tokenizer", "config"])
def test_files_that_are_missing_or_broken_are_said_so(tmp_path: Path, damage: str) -> None:
    save_cross_encoder(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            (tmp_path / name).unlink(missing_ok=True)
    else:
        (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelNotFound):
        load_reranker(str(tmp_path), "cpu")


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 80}))
    with pytest.raises(WrongModel, match="do not belong together"):
        load_reranker(str(tmp_path), "cpu")


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
