"""Rows of token ids as one rectangular tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def padded(
    rows: Sequence[Sequence[int]], pad: int, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), each of shape (rows, longest), padded on the right or the left."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        real = slice(width - len(row), width) if left else slice(len(row))
        ids[place, real] = row
        mask[place, real] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
