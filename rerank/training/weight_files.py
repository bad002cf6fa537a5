"""Weights as transformers reads them back."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file


def save_weights(directory: Path, model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """`model.safetensors`; weights tied to others are left out. Raises OSError."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    kept = {
        name: values.detach().cpu().contiguous()
        for name, values in weights.items()
        if name not in tied
    }
    write_tensors(directory / "model.safetensors", kept)


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises OSError, whatever the library raises for a full disk."""
    try:
        save_file(dict(tensors), str(file), metadata={"format": "pt"})
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error
