"""LoRA: two narrow matrices beside each linear layer are trained, the layer itself is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rerank.errors import TrainingFailed


@dataclass(frozen=True)
class LoraSettings:
    """`rank`: columns of the narrow matrices. `alpha`: their product counts alpha / rank; 0 for
    2 x rank. `dropout` of what they read. `save_adapter`: the checkpoint also holds them alone, in
    `adapter/`."""

    rank: int = 16
    alpha: float = 0.0
    dropout: float = 0.0
    save_adapter: bool = True

    def __post_init__(self) -> None:
        """Raises TrainingFailed."""
        if self.rank < 1 or self.alpha < 0 or not 0 <= self.dropout < 1:
            raise TrainingFailed(
                "A LoRA rank is at least 1, alpha at least 0, dropout at least 0 and less than 1."
            )


def with_adapter(model: Any, settings: LoraSettings) -> Any:
    """`model` (transformers) frozen, with adapters on all its linear layers, which begin without
    any effect. Adapters are float32 whatever the model is."""
    from peft import LoraConfig, get_peft_model

    config: Any = LoraConfig
    chosen = config(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=linear_layers(model),
        bias="none",
    )
    return get_peft_model(model, chosen)


def linear_layers(model: Any) -> list[str]:
    """Names of the linear layers of the model's body; heads and embeddings are not among them."""
    body = model.base_model
    prefix = "" if body is model else f"{model.base_model_prefix}."
    return [
        prefix + name
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]


def merged(model: Any) -> dict[str, torch.Tensor]:
    """The weights with the adapters' share added, by the names the plain model has for them; the
    model itself stays as it is. Changed ones lie in main memory, or a second copy might not fit."""
    found: dict[str, torch.Tensor] = {}
    plain = model.base_model.model
    layers = {
        name: module
        for name, module in plain.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    with torch.no_grad():
        for name, values in plain.state_dict().items():
            if ".lora_" in name:
                continue
            layer = name.removesuffix(".base_layer.weight")
            clear = name.replace(".base_layer.", ".")
            if layer in layers and layer != name:
                delta = layers[layer].get_delta_weight("default")
                found[clear] = (values.float() + delta.float()).to(values.dtype).cpu()
            else:
                found[clear] = values
    return found


def save_adapter(model: Any, directory: Path) -> None:
    """As peft reads it back. Raises OSError when the disk is full."""
    model.save_pretrained(str(directory), safe_serialization=True)
