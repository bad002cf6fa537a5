"""The decoder in merged steps against transformers' own forward pass, layer by layer exact."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rerank.inference.packed_attention import Packing
from rerank.inference.qwen_decoder import QwenDecoder

from .tiny_qwen import decoder

CPU = torch.device("cpu")
LENGTHS = [5, 17, 1, 9]


def by_transformers(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Hidden state of each document's last token, each document alone."""
    with torch.inference_mode():
        return torch.cat(
            [model(input_ids=own[None]).last_hidden_state[:, -1] for own in ids.split(LENGTHS)]
        )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": True},
        {"num_key_value_heads": 4, "num_hidden_layers": 1},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}},
    ],
    ids=["grouped", "biases", "one layer", "stretched positions"],
)
def test_merged_steps_give_what_transformers_gives(changes: dict[str, Any]) -> None:
    model = decoder(**changes).model
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(weight, mean=1.0)
    ids = torch.randint(0, 300, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    expected = by_transformers(model, ids)
    merged = QwenDecoder(copy.deepcopy(model))
    with torch.inference_mode():
        got = merged.read(ids, Packing(LENGTHS, CPU))
    assert got is not None
    assert torch.allclose(got, expected, rtol=1e-6, atol=1e-5)
    assert float((got - expected).norm() / expected.norm()) < 1e-6


def test_the_layers_leave_the_model_they_came_from() -> None:
    model = decoder().model
    QwenDecoder(model)
    assert len(model.layers) == 0


def test_a_prefix_gives_its_keys_and_values_of_every_layer_and_no_more() -> None:
    model = decoder().model
    layers = model.config.num_hidden_layers
    merged = QwenDecoder(model)
    packing = Packing([7], CPU, keep=True)
    with torch.inference_mode():
        assert merged.read(torch.arange(7), packing) is None
    assert sorted(packing.kept) == list(range(layers))
    assert {tuple(each.shape) for pair in packing.kept.values() for each in pair} == {(7, 2, 16)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_on_the_gpu_the_decoder_gives_what_the_cpu_gives(compiled: bool) -> None:
    model = decoder().model
    gpu = QwenDecoder(copy.deepcopy(model).to("cuda"), compiled=compiled)
    cpu = QwenDecoder(model)
    for lengths in (LENGTHS, [30], [3, 3]):
        ids = torch.randint(0, 300, (sum(lengths),))
        with torch.inference_mode():
            expected = cpu.read(ids, Packing(lengths, CPU))
            got = gpu.read(ids.cuda(), Packing(lengths, torch.device("cuda")))
        assert expected is not None and got is not None
        assert torch.allclose(got.cpu(), expected, rtol=1e-3, atol=1e-3)
