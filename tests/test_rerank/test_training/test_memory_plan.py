"""The plan's arithmetic equals what a small model takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rerank.errors import WrongModel
from rerank.training.bases import casting, open_base
from rerank.training.lora import LoraSettings
from rerank.training.memory_plan import (
    ACTIVATION_FACTOR,
    METHODS,
    ZERANK_1_SMALL,
    ZERANK_2,
    Method,
    activation_bytes,
    architecture_of,
    layer_bytes,
    memory_of,
    plan_table,
)
from rerank.training.settings import Settings

from ..tiny import save_headless
from ..tiny_qwen import decoder, save_modules

FORMATS = {2: "bfloat16", 4: "float32"}
SHAPE = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def size(tensors: list[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", [Method(0, False, False), Method(4, False, False)])
def test_weights_gradients_and_states_are_as_planned(
    tmp_path: Path, method: Method, tied: bool
) -> None:
    directory = save_modules(decoder(tie_word_embeddings=tied), tmp_path / "model")
    lora = LoraSettings(rank=method.rank) if method.rank else None
    base = open_base(str(directory), device="cpu", dtype_name=FORMATS[2 if lora else 4], lora=lora)
    optimiser = torch.optim.AdamW(
        [
            {"params": group["params"], "lr": group["lr"]}
            for group in base.parameter_groups(Settings())
        ]
    )
    base.logits(base.rows("a query", "", ["boil apples"])).sum().backward()
    optimiser.step()
    planned = memory_of(architecture_of(str(directory)), method)
    weights = list(base.module.parameters())
    assert size(weights) == planned.weights
    assert size([each.grad for each in weights if each.grad is not None]) == planned.gradients
    states = [
        each for state in optimiser.state.values() for name, each in state.items() if name != "step"
    ]
    assert size(states) == planned.optimiser


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(("rank", "weights"), [(0, 4), (4, 4), (4, 2)])
def test_activations_are_about_as_planned(
    tmp_path: Path, rank: int, weights: int, autocast: bool
) -> None:
    directory = str(save_modules(decoder(**SHAPE), tmp_path / "model"))
    for checkpointing in (False, True):
        method = Method(rank, checkpointing, autocast, weights)
        lora = LoraSettings(rank=rank) if rank else None
        base = open_base(directory, device="cpu", dtype_name=FORMATS[weights], lora=lora)
        base.checkpoint_layers(checkpointing)
        base.module.train()
        rows = base.rows("a query", "", ["boil apples " * 20] * 4)
        shapes = {tuple(w.shape) for w in base.module.parameters()}
        shapes |= {shape[::-1] for shape in shapes}
        kept: dict[int, torch.Tensor] = {}

        def keep(
            tensor: torch.Tensor, kept: dict[int, torch.Tensor] = kept, shapes: set = shapes
        ) -> torch.Tensor:
            if tuple(tensor.shape) not in shapes:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, casting(base.device, autocast):
            base.logits(rows)
        found = sum(each.untyped_storage().nbytes() for each in kept.values())
        found /= sum(len(row.ids) for row in rows)
        architecture = architecture_of(directory)
        planned = activation_bytes(architecture, method)
        if checkpointing:
            # The one layer's own are there only while it is computed again.
            planned -= layer_bytes(architecture, method)
        assert 1 / ACTIVATION_FACTOR < found / planned < ACTIVATION_FACTOR


def test_the_known_models_have_the_size_they_are_called_by() -> None:
    assert round(ZERANK_1_SMALL.parameters / 1e9, 1) == 1.7
    assert round(ZERANK_2.parameters / 1e9, 1) == 4.0
    # q, k, v and o of 2560 x 4096, 1024, 1024 and 4096, three of 2560 x 9728, 36 times.
    assert ZERANK_2.linear_parameters == 36 * 2560 * (4096 + 1024 + 1024 + 4096 + 3 * 9728)


def test_less_memory_fits_less(tmp_path: Path) -> None:
    for architecture in (ZERANK_1_SMALL, ZERANK_2):
        for method in METHODS:
            tokens = [memory_of(architecture, method).tokens_on(gb) for gb in (16, 24, 48, 80)]
            assert tokens == sorted(tokens)
    assert memory_of(ZERANK_2, METHODS[0]).tokens_on(48) == 0
    table = plan_table("1.7b", 24)
    assert "24 GB" in table and "80 GB" not in table and "not measured" in table
    assert plan_table("zeroentropy/zerank-2-reranker") == plan_table("4B")
    assert max(len(line) for line in table.splitlines()[3:]) <= 100
    with pytest.raises(WrongModel, match="no Qwen3 decoder"):
        plan_table(str(save_headless(tmp_path / "bert")))
