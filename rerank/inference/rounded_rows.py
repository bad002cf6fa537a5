"""Linear layers in half precision on a CPU, without a kernel for every length of text.

For every number of rows it has not seen, the CPU's library makes a kernel of its own, which takes
milliseconds and most of a megabyte that it keeps: a thousand lengths once seen are 700 MB. Rows of
zeros at the end leave it few numbers to see; float32 goes through another library and needs none.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """As torch's, for x of shape (..., in)."""
    if x.device.type != "cpu" or x.dtype == torch.float32:
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    step = 16 if len(rows) < 64 else 64
    filled = F.pad(rows, (0, 0, 0, -len(rows) % step))
    return F.linear(filled, weight, bias)[: len(rows)].view(*x.shape[:-1], len(weight))


class RoundedLinear(nn.Module):
    """`like` with its own weights, which are not copied."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        self.weight = like.weight
        self.bias = like.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


def round_rows(model: nn.Module) -> None:
    """Replaces every linear layer within `model`, where the device and format call for it."""
    first = next(model.parameters(), None)
    if first is None or first.device.type != "cpu" or first.dtype == torch.float32:
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, RoundedLinear(child))
