"""How to train. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from rerank.errors import TrainingFailed

Loss = Literal["mse", "bce", "listwise", "pair_bce"]
LOSSES: tuple[Loss, ...] = ("mse", "bce", "listwise", "pair_bce")


@dataclass(frozen=True)
class Settings:
    """Defaults suit full training of a BERT-size base; LoRA wants `rate` 1e-4.

    `loss`: losses.py; "pair_bce" for pairs, the others for lists. `max_steps`: 0 for as many as the
    epochs give. `batch`: lists or pairs of one step, over all processes. `documents_per_list`: so
    many of a list's documents a step, others each epoch; 0 for all. `micro_batch_tokens`: tokens
    read at once, padding included; only a single row, or for "listwise" a single list, may be more.
    `rate`: of the topmost layer, after the warm-up; each layer below gets `layer_decay` times the
    rate of the one above it. `head_rate`: of a head outside the body; 0 for `rate`. `warmup`: share
    of the steps in which the rate rises from 0; afterwards it falls to 0 on a line. `clip`: largest
    norm of a step's gradient. `autocast`: multiply in bfloat16. `checkpointing`: keep only the
    layers' inputs and compute the rest again, a third slower. `swap_pairs`: half of the pairs are
    read as (b, a). `validate_every`, `save_every`: steps; `validate_every` 0: at each epoch's end.
    `patience`: validations without a better `metric` after which training ends; 0 for never.
    `held_out`: share of the queries to validate on, where none are given. `keep_best`: the
    checkpoint is the best validation's, else the last step's.
    """

    loss: Loss = "mse"
    epochs: int = 1
    max_steps: int = 0
    batch: int = 16
    documents_per_list: int = 0
    micro_batch_tokens: int = 4096
    rate: float = 2e-5
    head_rate: float = 0.0
    layer_decay: float = 1.0
    freeze_embeddings: bool = False
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    autocast: bool = False
    checkpointing: bool = False
    swap_pairs: bool = True
    seed: int = 0
    validate_every: int = 0
    save_every: int = 100
    patience: int = 0
    held_out: float = 0.1
    keep_best: bool = True

    def __post_init__(self) -> None:
        """Raises TrainingFailed for values that make no sense."""
        if self.loss not in LOSSES:
            raise TrainingFailed(
                f"There is no loss called {self.loss!r}. Choose one of {', '.join(LOSSES)}."
            )
        at_least: dict[str, float] = {
            "epochs": 1,
            "max_steps": 0,
            "batch": 1,
            "documents_per_list": 0,
            "micro_batch_tokens": 1,
            "head_rate": 0,
            "weight_decay": 0,
            "seed": 0,
            "validate_every": 0,
            "save_every": 1,
            "patience": 0,
        }
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise TrainingFailed(f"The setting {name} is at least {least:g}.")
        for name in ("rate", "clip"):
            if not getattr(self, name) > 0:
                raise TrainingFailed(f"The setting {name} is above 0.")
        if not 0 < self.layer_decay <= 1:
            raise TrainingFailed("The setting layer_decay lies above 0 and is at most 1.")
        for name in ("warmup", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingFailed(f"The setting {name} is at least 0 and less than 1.")


def settings_from(values: dict[str, Any]) -> Settings:
    """By name, as a recipe or a form gives them. Raises TrainingFailed for unknown names and values
    of another type."""
    known = {field.name: field.default for field in fields(Settings)}
    for name, value in values.items():
        if name not in known:
            raise TrainingFailed(
                f"There is no setting called {name!r}. Choose from {', '.join(sorted(known))}."
            )
        default = known[name]
        wanted = (int, float) if isinstance(default, float) else (type(default),)
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, wanted):
            raise TrainingFailed(
                f"The setting {name} is {value!r}; it should look like {default!r}."
            )
    return Settings(**values)
