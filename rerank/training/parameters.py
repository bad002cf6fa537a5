"""Which weights learn how fast."""

from __future__ import annotations

import re
from typing import Any

import torch

from rerank.errors import TrainingFailed

from .settings import Settings

_LAYER = re.compile(r"\.layers?\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(^|\.)(embeddings|embed_tokens)\.")


def groups(module: torch.nn.Module, body: str, settings: Settings) -> list[dict[str, Any]]:
    """Groups for AdamW, of weights that take the same rate and decay; frozen ones are in none.

    A layer gets `settings.layer_decay` times the rate of the layer above it, the embeddings that
    of the lowest layer once more; what belongs to no layer gets the topmost rate, and outside the
    `body` (a part of the weights' names) `settings.head_rate`. Norms and biases do not decay.
    Raises TrainingFailed when all is frozen.
    """
    if settings.freeze_embeddings:
        for name, weight in module.named_parameters():
            if _EMBEDDINGS.search(name):
                weight.requires_grad_(False)
    named = [(name, w) for name, w in module.named_parameters() if w.requires_grad]
    if not named:
        raise TrainingFailed("Every weight of the base is frozen; nothing would be learned.")
    layers = 1 + max(
        (int(found[1]) for name, _ in named if (found := _LAYER.search(name))), default=0
    )
    found_groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, weight in named:
        rate = settings.rate * settings.layer_decay ** _below_top(name, layers)
        if body not in name and settings.head_rate:
            rate = settings.head_rate
        decay = settings.weight_decay if weight.dim() > 1 else 0.0
        group = found_groups.setdefault(
            (rate, decay), {"params": [], "names": [], "lr": rate, "weight_decay": decay}
        )
        group["params"].append(weight)
        group["names"].append(name)
    return list(found_groups.values())


def _below_top(name: str, layers: int) -> int:
    """How many layers stand above the one the weight belongs to."""
    if _EMBEDDINGS.search(name):
        return layers
    found = _LAYER.search(name)
    return layers - 1 - int(found[1]) if found else 0
