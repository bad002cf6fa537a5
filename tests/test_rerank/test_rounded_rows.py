"""Linear layers that show the CPU's library few numbers of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rerank.inference.rounded_rows import RoundedLinear, linear, round_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (16, 8), (65, 8), (3, 7, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_rows_of_zeros_change_no_output(
    dtype: torch.dtype, shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 24, bias=bias, dtype=dtype)
    x = torch.randn(shape, dtype=dtype)
    got = linear(x, layer.weight, layer.bias)
    assert got.shape == (*shape[:-1], 24)
    assert torch.allclose(got, F.linear(x, layer.weight, layer.bias), atol=1e-2)


def test_only_models_in_half_precision_are_changed_and_weights_are_not_copied() -> None:
    def made() -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.GELU(), nn.Linear(8, 2)))

    plain = made()
    round_rows(plain)
    assert type(plain[0]) is nn.Linear
    half = made().bfloat16()
    weight = half[1][1].weight
    names = list(half.state_dict())
    round_rows(half)
    assert isinstance(half[0], RoundedLinear)
    assert half[1][1].weight is weight
    assert list(half.state_dict()) == names
