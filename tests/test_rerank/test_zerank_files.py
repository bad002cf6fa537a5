"""Which directories are zerank models, and what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rerank.errors import ModelNotFound, WrongModel
from rerank.inference.golden import TOLERANCE, check_golden, golden_pairs
from rerank.inference.loading import load_reranker
from rerank.inference.models import directory_of
from rerank.inference.zerank import ZerankReranker
from rerank.types import FloatArray, ModelCard, RerankRequest, RerankScores

from .tiny import save_cross_encoder
from .tiny_qwen import (
    change_weights,
    decoder,
    save_classifier,
    save_modules,
    save_remote_code,
    tokenizer,
)


@pytest.fixture(scope="module")
def model() -> Any:
    return decoder()


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_each_layout_is_recognised_by_its_directory(model: Any, tmp_path: Path) -> None:
    for save, folder in [
        (save_modules, "a"),
        (save_remote_code, "b"),
        (save_classifier, "c"),
    ]:
        directory = save(model, tmp_path / folder)
        loaded = load_reranker(str(directory), "cpu")
        assert isinstance(loaded, ZerankReranker)
        scores = loaded.score(RerankRequest("jam", ["apples", "cats"]))
        assert np.isfinite(scores.logits).all()
        assert loaded.card.name == str(directory)


def test_a_bert_cross_encoder_is_none_of_this_family(tmp_path: Path) -> None:
    loaded = load_reranker(str(save_cross_encoder(tmp_path)), "cpu")
    assert not isinstance(loaded, ZerankReranker)


def test_a_module_in_a_folder_of_its_own_is_found(model: Any, tmp_path: Path) -> None:
    directory = save_modules(model, tmp_path)
    (directory / "0_Transformer").mkdir()
    for path in list(directory.iterdir()):
        if path.is_file() and path.name not in {
            "modules.json",
            "config_sentence_transformers.json",
        }:
            path.rename(directory / "0_Transformer" / path.name)
    modules = json.loads((directory / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (directory / "modules.json").write_text(json.dumps(modules))
    assert isinstance(load_reranker(str(directory), "cpu"), ZerankReranker)


def test_a_plain_language_model_is_refused(model: Any, tmp_path: Path) -> None:
    directory = save_remote_code(model, tmp_path)
    (directory / "modeling_zeranker.py").unlink()
    edit(directory / "config.json", auto_map={})
    with pytest.raises(WrongModel, match="not trained to score"):
        load_reranker(str(directory), "cpu")


def test_a_classifier_without_a_stored_head_is_refused(model: Any, tmp_path: Path) -> None:
    directory = save_classifier(model, tmp_path)
    change_weights(directory, {"score.weight": None})
    with pytest.raises(WrongModel, match=r"score\.weight.*random"):
        load_reranker(str(directory), "cpu")


def test_a_classifier_of_several_labels_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(WrongModel, match="3 numbers"):
        load_reranker(str(save_classifier(model, tmp_path, labels=3)), "cpu")


def test_an_untied_decoder_without_its_vocabulary_head_is_refused(tmp_path: Path) -> None:
    directory = save_modules(decoder(tie_word_embeddings=False), tmp_path)
    change_weights(directory, {"lm_head.weight": None})
    with pytest.raises(WrongModel, match=r"lm_head\.weight"):
        load_reranker(str(directory), "cpu")


def test_a_missing_weight_is_said_so(model: Any, tmp_path: Path) -> None:
    directory = save_modules(model, tmp_path)
    change_weights(directory, {"model.layers.1.mlp.up_proj.weight": None})
    with pytest.raises(ModelNotFound, match=r"layers\.1\.mlp\.up_proj.*Download"):
        load_reranker(str(directory), "cpu")


def test_weights_of_another_size_are_refused(model: Any, tmp_path: Path) -> None:
    directory = save_modules(model, tmp_path)
    edit(directory / "config.json", intermediate_size=80)
    with pytest.raises(WrongModel, match="do not fit"):
        load_reranker(str(directory), "cpu")


def test_weights_that_are_no_numbers_are_refused(model: Any, tmp_path: Path) -> None:
    directory = save_modules(model, tmp_path)
    change_weights(directory, {"model.norm.weight": torch.full((32,), float("nan"))})
    with pytest.raises(WrongModel, match=r"norm\.weight holds values that are no numbers"):
        load_reranker(str(directory), "cpu")


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "1_LogitScore"])
def test_missing_files_are_said_so(model: Any, tmp_path: Path, missing: str) -> None:
    directory = save_modules(model, tmp_path)
    if missing == "1_LogitScore":
        (directory / missing / "config.json").unlink()
    else:
        (directory / missing).unlink()
    with pytest.raises(ModelNotFound, match=r"[Dd]ownload|cannot be read"):
        load_reranker(str(directory), "cpu")


def test_a_broken_weight_file_is_said_so(model: Any, tmp_path: Path) -> None:
    directory = save_modules(model, tmp_path)
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelNotFound, match="cannot be read"):
        load_reranker(str(directory), "cpu")


def test_a_true_token_outside_the_vocabulary_is_refused(model: Any, tmp_path: Path) -> None:
    directory = save_modules(model, tmp_path)
    edit(directory / "1_LogitScore" / "config.json", true_token_id=9454)
    with pytest.raises(WrongModel, match="9454"):
        load_reranker(str(directory), "cpu")


def test_a_directory_named_after_published_weights_must_give_their_scores(
    model: Any, tmp_path: Path
) -> None:
    directory = save_modules(model, tmp_path / "zerank-2")
    with pytest.raises(WrongModel, match="published scores"):
        load_reranker(str(directory), "cpu")


class Recorded:
    """A reranker with given relevances by document."""

    card = ModelCard("recorded", "", "CPU", "float32")

    def __init__(self, relevances: dict[str, float]) -> None:
        self.relevances = relevances

    def score(self, request: RerankRequest) -> RerankScores:
        values: FloatArray = np.array(
            [self.relevances[document] for document in request.documents], dtype=np.float32
        )
        return RerankScores(values, values, "published")


@pytest.mark.parametrize("name", ["zeroentropy/zerank-2-reranker@main", "/models/zerank-1/"])
def test_published_scores_pass_within_the_tolerance_only(name: str) -> None:
    published = {
        document: relevance
        for golden in golden_pairs(name)
        for document, relevance in zip(golden.documents, golden.relevances, strict=True)
    }
    assert check_golden(Recorded(published), name) == len(published) >= 3
    near = {document: value + TOLERANCE / 3 for document, value in published.items()}
    assert check_golden(Recorded(near), name) == len(published)
    for document in published:
        off = {**published, document: published[document] + 2 * TOLERANCE}
        with pytest.raises(WrongModel, match="instead of"):
            check_golden(Recorded(off), name)
        with pytest.raises(WrongModel):
            check_golden(Recorded({**published, document: float("nan")}), name)


def test_of_other_names_no_scores_are_known(model: Any) -> None:
    assert golden_pairs("my/own-model") == ()
    assert check_golden(Recorded({}), "my/own-model") == 0


def test_the_published_logits_give_the_published_relevances() -> None:
    values = golden_pairs("zerank-2")[0].relevances
    assert values == pytest.approx(
        tuple(1 / (1 + np.exp(-x / 5)) for x in (5.40625, -4.5)), abs=1e-4
    )


def test_a_pinned_revision_is_looked_up_in_the_cache(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--my--zerank"
    old = save_modules(model, repository / "snapshots" / ("a" * 40))
    new = save_modules(decoder(seed=9), repository / "snapshots" / ("b" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    assert directory_of("my/zerank").samefile(new)
    assert directory_of(f"my/zerank@{'a' * 40}").samefile(old)
    loaded = load_reranker(f"my/zerank@{'a' * 40}", "cpu")
    assert loaded.card.revision.startswith("a" * 40)
    with pytest.raises(ModelNotFound):
        directory_of(f"my/zerank@{'c' * 40}")


def test_the_vocabulary_of_the_tests_has_the_scoring_words() -> None:
    assert tokenizer().token_to_id("Yes") is not None
    assert tokenizer().token_to_id("No") is not None
