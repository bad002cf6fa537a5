"""The recipe of docs/lora.md from end to end, on a tiny decoder: a collection's own judgments with
its instruction, LoRA, merged weights, serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rerank.errors import TrainingFailed
from rerank.inference.loading import load_reranker
from rerank.training.bases import open_base, score_rows
from rerank.training.checkpoint import read_manifest
from rerank.training.events import read_events
from rerank.training.examples import TrainingList
from rerank.training.loop import train
from rerank.training.lora import LoraSettings
from rerank.training.settings import Settings
from rerank.types import RerankRequest

from ..tiny_qwen import decoder, save_modules
from .small import pairs

INSTRUCTION = "prefer cats"


def judged(count: int = 12) -> list[TrainingList]:
    """With the instruction cats are wanted, without it dogs."""
    made = []
    for number in range(count):
        wants_cats = number % 2 == 0
        documents = (f"Cats {number}", f"dogs {number}")
        made.append(
            TrainingList(
                f"q{number}",
                f"the answer is {number // 2}",
                INSTRUCTION if wants_cats else "",
                documents,
                (0.9, 0.1) if wants_cats else (0.1, 0.9),
            )
        )
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, Any]]]:
    """Base, run, events."""
    folder = tmp_path_factory.mktemp("lora")
    directory = save_modules(decoder(), folder / "zerank-tiny")
    base = open_base(str(directory), device="cpu", lora=LoraSettings(rank=8), max_tokens=128)
    settings = Settings(
        loss="mse",
        epochs=20,
        batch=8,
        rate=5e-3,
        micro_batch_tokens=512,
        checkpointing=True,
        save_every=50,
    )
    train(base, judged(), settings, directory=folder / "run", held_out=())
    return directory, folder / "run", read_events(folder / "run")


def test_scores_move_towards_the_targets(
    trained: tuple[Path, Path, list[dict[str, Any]]],
) -> None:
    base, run, events = trained
    before, after = (
        load_reranker(str(each), "cpu", "float32") for each in (base, run / "checkpoint")
    )
    errors = []
    for reranker in (before, after):
        found = [
            reranker.score(RerankRequest(e.query, e.documents, e.instruction)).relevance - e.targets
            for e in judged()
        ]
        errors.append(float(np.mean(np.square(found))))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.05
    assert after.card.extra["layout"] == "modules"
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[-1] < 0.3 * losses[0]


def test_the_instruction_is_in_the_frame_and_turns_the_order(
    trained: tuple[Path, Path, list[dict[str, Any]]],
) -> None:
    base, run, _ = trained
    frame = open_base(str(base), device="cpu")
    with_it, without = (
        frame.rows("the answer is 3", each, ["Cats 3"])[0] for each in (INSTRUCTION, "")
    )
    assert len(with_it.ids) > len(without.ids)
    reranker = load_reranker(str(run / "checkpoint"), "cpu", "float32")
    for instruction, cats_first in ((INSTRUCTION, True), (None, False)):
        request = RerankRequest("the answer is 3", ["Cats 3", "dogs 3"], instruction)
        cats, dogs = reranker.score(request).relevance
        assert bool(cats > dogs) is cats_first


def test_the_manifest_names_base_and_adapter(
    trained: tuple[Path, Path, list[dict[str, Any]]],
) -> None:
    _, run, _ = trained
    manifest = read_manifest(run / "checkpoint")
    assert manifest.base["kind"] == "zerank" and manifest.base["lora"]["rank"] == 8
    assert manifest.base["trained"] < manifest.base["parameters"]
    assert (run / "checkpoint" / "adapter" / "adapter_model.safetensors").is_file()
    # Embeddings are the base's, untouched.
    stored = load_file(run / "checkpoint" / "model.safetensors")
    own = decoder().state_dict()
    assert torch.equal(stored["model.embed_tokens.weight"], own["model.embed_tokens.weight"])
    assert "lm_head.weight" not in stored


def test_lora_trains_on_bfloat16_weights(tmp_path: Path) -> None:
    directory = save_modules(decoder(), tmp_path / "zerank-tiny")
    base = open_base(str(directory), device="cpu", dtype_name="bfloat16", lora=LoraSettings())
    settings = Settings(loss="pair_bce", epochs=3, batch=8, rate=2e-3, held_out=0.0, autocast=True)
    outcome = train(base, pairs(), settings, directory=tmp_path / "run")
    losses = [e["loss"] for e in read_events(tmp_path / "run") if e["event"] == "step"]
    assert outcome.state == "done" and losses[-1] < losses[0]
    # The checkpoint is a base again: the pairwise model as a judge opens it so.
    again = open_base(str(outcome.checkpoint), device="cpu")
    rows = [again.pair_row("fruit 3", "", "fresh apples 3", "old cars")]
    assert np.isfinite(score_rows(again, rows)).all()


def test_strange_adapters_are_refused() -> None:
    with pytest.raises(TrainingFailed, match="rank is at least 1"):
        LoraSettings(rank=0)
