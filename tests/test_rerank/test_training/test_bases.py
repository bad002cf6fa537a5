"""What a base reads and saves is what serving reads and loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rerank.errors import BadInput, TrainingFailed, WrongModel
from rerank.inference.loading import load_reranker
from rerank.training.bases import Trainable, open_base, score_rows
from rerank.training.lora import LoraSettings
from rerank.training.settings import Settings
from rerank.training.two_documents import cut_both
from rerank.types import RerankRequest

from ..tiny import save_cross_encoder, save_headless
from ..tiny_models import save_roberta
from ..tiny_qwen import decoder, save_classifier, save_modules, save_remote_code

LORA = LoraSettings(rank=4)
DOCUMENTS = ["boil apples", "cats and dogs " * 80, "", "Schöne Grüße\n\n[SEP] <|im_end|>"]
QUERY = "what is the first step in making apple jam"


def qwen_modules(directory: Path) -> Path:
    return save_modules(decoder(), directory)


def qwen_remote_code(directory: Path) -> Path:
    return save_remote_code(decoder(), directory)


def qwen_untied(directory: Path) -> Path:
    return save_modules(decoder(tie_word_embeddings=False), directory)


def qwen_against_no(directory: Path) -> Path:
    return save_modules(decoder(), directory, false_token=9)


KINDS = [
    save_cross_encoder,
    save_headless,
    save_roberta,
    qwen_remote_code,
    qwen_untied,
    qwen_against_no,
]
# LoRA finds its layers by name, so one encoder and one decoder stand for the others.
TRAINED = [(save, None) for save in KINDS] + [
    (save, LORA) for save in (save_headless, qwen_modules)
]


def disturb(base: Trainable) -> None:
    """Every trained weight moves, as training would move it."""
    chance = torch.Generator().manual_seed(3)
    base.parameter_groups(Settings())
    with torch.no_grad():
        for weight in base.module.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=chance)


@pytest.mark.parametrize(
    ("save", "lora"),
    TRAINED,
    ids=lambda each: getattr(each, "__name__", "lora" if each else "full"),
)
def test_what_was_trained_scores_the_same_when_it_serves(
    tmp_path: Path, save: Any, lora: LoraSettings | None
) -> None:
    base = open_base(str(save(tmp_path / "zerank-tiny")), device="cpu", lora=lora, max_tokens=100)
    disturb(base)
    base.save(tmp_path / "saved")
    served = load_reranker(str(tmp_path / "saved"), "cpu", "float32")
    for instruction in ("", "prefer short answers"):
        trained = score_rows(base, base.rows(QUERY, instruction, DOCUMENTS), tokens=150)
        scores = served.score(RerankRequest(QUERY, DOCUMENTS, instruction))
        assert np.abs(scores.logits - trained).max() < 1e-4
        expected = 1 / (1 + np.exp(-trained / base.temperature))
        assert np.abs(scores.relevance - expected).max() < 1e-5
        assert scores.truncated == 1
        assert np.ptp(trained) > 0.01


def test_an_embedders_body_starts_with_equal_scores(tmp_path: Path) -> None:
    base = open_base(str(save_headless(tmp_path / "body")), device="cpu")
    assert not score_rows(base, base.rows(QUERY, "", DOCUMENTS)).any()


def test_a_fresh_adapter_changes_nothing(tmp_path: Path) -> None:
    directory = str(qwen_modules(tmp_path / "zerank"))
    plain, adapted = (open_base(directory, device="cpu", lora=each) for each in (None, LORA))
    rows = plain.rows(QUERY, "", DOCUMENTS)
    assert np.array_equal(score_rows(plain, rows), score_rows(adapted, rows))
    trained = [name for name, w in adapted.module.named_parameters() if w.requires_grad]
    assert len(trained) == 2 * 2 * 7
    assert all("lora" in name for name in trained)


def test_an_adapter_is_saved_alone_too(tmp_path: Path) -> None:
    from peft import PeftModel

    directory = qwen_modules(tmp_path / "zerank")
    base = open_base(str(directory), device="cpu", lora=LORA)
    disturb(base)
    base.save(tmp_path / "saved")
    adapted = PeftModel.from_pretrained(
        decoder(), tmp_path / "saved" / "adapter"
    ).merge_and_unload()
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    for name, values in adapted.state_dict().items():
        if name in stored:
            assert torch.allclose(values, stored[name], atol=1e-6)


@pytest.mark.parametrize("save", [save_cross_encoder, save_headless, save_roberta, qwen_modules])
def test_a_pair_holds_query_and_both_documents(tmp_path: Path, save: Any) -> None:
    base = open_base(str(save(tmp_path / "model")), device="cpu")
    single = base.rows(QUERY, "", ["boil apples", "stir"])
    row = base.pair_row(QUERY, "", "boil apples", "stir")
    swapped = base.pair_row(QUERY, "", "stir", "boil apples")
    assert len(row.ids) == len(swapped.ids) > max(len(each.ids) for each in single)
    assert row.ids != swapped.ids and sorted(row.ids) == sorted(swapped.ids)
    assert len(row.types) in {0, len(row.ids)}
    long = base.pair_row(QUERY, "", "boil apples " * 200, "cats and dogs " * 200)
    assert len(long.ids) == base.max_tokens
    assert len(base.pair_row(QUERY, "", "boil " * 400, "cats").ids) == base.max_tokens


def test_two_documents_share_the_room() -> None:
    one, two = list(range(10)), list(range(20))
    assert [len(each) for each in cut_both(one, two, 40)] == [10, 20]
    assert [len(each) for each in cut_both(one, two, 25)] == [10, 15]
    assert [len(each) for each in cut_both(two, one, 25)] == [15, 10]
    assert [len(each) for each in cut_both(two, two, 25)] == [12, 13]


def test_lower_layers_learn_slower_and_frozen_embeddings_not_at_all(tmp_path: Path) -> None:
    base = open_base(str(save_cross_encoder(tmp_path / "bert")), device="cpu")
    found = base.parameter_groups(
        Settings(rate=1e-3, layer_decay=0.5, head_rate=1e-2, freeze_embeddings=True)
    )
    rates = {name: group["lr"] for group in found for name in group["names"]}
    assert rates["bert.encoder.layer.1.output.dense.weight"] == 1e-3
    assert rates["bert.encoder.layer.0.output.dense.weight"] == 5e-4
    assert rates["classifier.weight"] == 1e-2
    assert not [name for name in rates if "embeddings" in name]
    decays = {name: group["weight_decay"] for group in found for name in group["names"]}
    assert decays["classifier.weight"] == 0.01 and decays["classifier.bias"] == 0


def test_what_cannot_be_trained_is_named(tmp_path: Path) -> None:
    three = save_cross_encoder(tmp_path / "three")
    config = json.loads((three / "config.json").read_text())
    labels = {str(label): f"LABEL_{label}" for label in range(3)}
    (three / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    with pytest.raises(WrongModel, match="gives 3 numbers"):
        open_base(str(three), device="cpu")
    with pytest.raises(WrongModel, match="converted to a classifier"):
        open_base(str(save_classifier(decoder(), tmp_path / "zerank-c")), device="cpu")
    directory = str(qwen_modules(tmp_path / "zerank"))
    with pytest.raises(TrainingFailed, match="float32"):
        open_base(directory, device="cpu", dtype_name="bfloat16")
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(WrongModel, match="neither"):
        open_base(str(strange), device="cpu")
    base = open_base(directory, device="cpu", max_tokens=64)
    with pytest.raises(BadInput, match="Shorten the instruction"):
        base.rows(QUERY, "prefer " * 80, ["boil apples"])
    with pytest.raises(BadInput, match="Unicode"):
        base.pair_row(QUERY, "", "half \ud800", "b")
