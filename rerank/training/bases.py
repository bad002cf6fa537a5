"""What can be trained: a base reads texts as its reranker will read them when it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from rerank.errors import TrainingFailed, WrongModel
from rerank.inference.batching import plan_batches
from rerank.inference.devices import choose_device, dtype_named
from rerank.inference.loading import quietly
from rerank.inference.models import UNTRAINED, directory_of
from rerank.types import FloatArray

from .lora import LoraSettings
from .processes import take_own_gpu
from .settings import Settings


@dataclass(frozen=True)
class TrainingRow:
    """One text pair (or query with two documents) as the model reads it.

    `types` is empty for models that take none. `extra`: what a base needs besides, for example the
    first stage's score.
    """

    ids: list[int]
    types: list[int] = field(default_factory=list)
    extra: Any = None


class Trainable(Protocol):
    """A base the loop can train without knowing its kind.

    `kind` and `name` are for people; `revision` changes whenever the base's weights do.
    relevance = sigmoid(logit / `temperature`) when it serves. `module` holds every weight; those
    with `requires_grad` are trained and are all that a resumed run needs besides the base. `lora`:
    None for full training. `max_tokens` of one row.
    """

    kind: str
    name: str
    revision: str
    temperature: float
    module: torch.nn.Module
    device: torch.device
    lora: LoraSettings | None
    max_tokens: int

    def rows(
        self,
        query: str,
        instruction: str,
        documents: Sequence[str],
        priors: Sequence[float] | None = None,
    ) -> list[TrainingRow]:
        """One per document, in order, each exactly what serving reads; only documents are cut.

        Raises BadInput when query and instruction leave them no room or a text is no Unicode.
        """
        ...

    def pair_row(self, query: str, instruction: str, a: str, b: str) -> TrainingRow:
        """The two-document frame of a pairwise model: its logit is that of P(a is better). Each
        document gets half of the room, or what the other leaves. Raises BadInput."""
        ...

    def logits(self, rows: Sequence[TrainingRow]) -> torch.Tensor:
        """float32, shape (rows,), with gradients; rows are padded to the longest."""
        ...

    def parameter_groups(self, settings: Settings) -> list[dict[str, Any]]:
        """Groups for the optimiser, each `params`, `lr`, `weight_decay` and `names`, in the same
        order every time. Freezes what `settings` says is frozen."""
        ...

    def checkpoint_layers(self, on: bool) -> None:
        """Whether activations are computed again in the backward pass instead of kept."""
        ...

    def save(self, directory: Path) -> None:
        """Weights (LoRA merged into them) and tokenizer in the layout that
        `rerank.inference.loading.load_reranker` reads. Raises OSError when the disk is full."""
        ...


def open_base(
    name: str,
    *,
    device: str = "auto",
    dtype_name: str = "float32",
    max_tokens: int = 0,
    lora: LoraSettings | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> Trainable:
    """The base `name`: a model's name or directory, "" for the built-in embedder's body.

    A zerank model or a bare Qwen3 language model becomes a zerank model; any BERT-type encoder a
    cross-encoder, with its own one-label head or a new one that starts at zero. `dtype_name` of the
    weights: "float32" unless only LoRA is trained. `max_tokens` of one row, also when the model
    serves; 0 for what the files allow. `dropout` between the layers; attention has none. Raises
    ModelNotFound, WrongModel, DeviceError, TrainingFailed.
    """
    take_own_gpu()
    directory, chosen, dtype = found_base(name, device, dtype_name, lora is not None)
    torch.manual_seed(seed)
    from .fused_maxsim_base import open_fused

    fused = open_fused(name, None if name == UNTRAINED else directory, chosen, max_tokens)
    if fused is not None:
        if lora is not None:
            raise TrainingFailed("The built-in reranker is trained in full, without LoRA.")
        return cast(Trainable, fused)
    from .cross_encoder_base import CrossEncoderBase, is_encoder
    from .zerank_base import ZerankBase, is_qwen3

    with quietly():
        if is_qwen3(name, directory):
            return ZerankBase(name, directory, chosen, dtype, max_tokens, lora)
        if is_encoder(directory):
            return CrossEncoderBase(name, directory, chosen, dtype, max_tokens, lora, dropout)
    raise WrongModel(
        f"The model {name!r} cannot be trained here: it is neither a BERT-type encoder nor a Qwen3 "
        "decoder."
    )


def found_base(
    name: str, device: str, dtype_name: str, with_lora: bool
) -> tuple[Path, torch.device, torch.dtype]:
    """Where the base `name` lies, and what it would be trained on and in; loads nothing. Raises
    ModelNotFound, DeviceError, TrainingFailed."""
    directory = directory_of("" if name == UNTRAINED else name)
    chosen = choose_device(device)
    dtype = dtype_named(dtype_name, chosen)
    if not with_lora and dtype != torch.float32:
        raise TrainingFailed(
            "Full training needs float32 weights, because small steps vanish in smaller formats. "
            "Use float32 with autocast, or LoRA."
        )
    return directory, chosen, dtype


def score_rows(
    base: Trainable, rows: Sequence[TrainingRow], tokens: int = 4096, autocast: bool = False
) -> FloatArray:
    """Logits without gradients, shape (rows,), in the order given; `tokens` a batch."""
    found = np.zeros(len(rows), dtype=np.float32)
    was_training = base.module.training
    base.module.eval()
    try:
        with torch.inference_mode(), casting(base.device, autocast):
            for places in plan_batches([len(row.ids) for row in rows], tokens):
                logits = base.logits([rows[place] for place in places])
                found[places] = logits.float().cpu().numpy()
    finally:
        base.module.train(was_training)
    return found


def casting(device: torch.device, on: bool) -> Any:
    """Multiplying in bfloat16 where `on`."""
    return torch.autocast(device.type, torch.bfloat16) if on else nullcontext()


def facts(base: Trainable) -> Mapping[str, Any]:
    """What the manifest says of the base."""
    weights = list(base.module.parameters())
    return {
        "kind": base.kind,
        "name": base.name,
        "revision": base.revision,
        "parameters": sum(each.numel() for each in weights),
        "trained": sum(each.numel() for each in weights if each.requires_grad),
        "max_tokens": base.max_tokens,
        "lora": None if base.lora is None else vars(base.lora),
    }
