"""The training itself: steps over lists or pairs, validation, states to go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .bases import Trainable
from .examples import Examples
from .settings import Settings

# One line of events.jsonl. `event` is one of: "started", "step", "validation", "skipped",
# "returned" (to the last good state), "saved", "cancelled", "done". All carry step, steps, seconds;
# "step": loss, lr, pairs_per_second, eta_seconds; "validation": metrics by name.
Event = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """`checkpoint`: the model directory, None when cancelled before there was one. `metrics` of the
    checkpoint: "nDCG@10" and "pairwise accuracy" (lists) or "pairwise accuracy" and "loss" (pairs);
    empty without validation. `before`: the same of the base as it came ("step 0"). `skipped`: steps
    whose loss or gradient was no number. `seconds`: of all runs together."""

    state: Literal["done", "cancelled"]
    checkpoint: Path | None
    steps: int
    best_step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0
    sentences: tuple[str, ...] = ()


def train(
    base: Trainable,
    examples: Examples,
    settings: Settings,
    *,
    directory: Path,
    held_out: Examples | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
    data: Mapping[str, Any] | None = None,
    command: tuple[str, ...] = (),
) -> Outcome:
    """Trains `base` in place and leaves `directory/checkpoint`, `directory/events.jsonl`.

    `held_out`: what to validate on; None splits `settings.held_out` of the examples off by
    splitting.py, () validates on nothing. `stopped` is asked before each step; True saves the state
    and returns "cancelled". Started again with the same base, examples and settings it goes on from
    `directory/state`, and ends with the same weights as a run that was never stopped; a run that
    was done returns its outcome again. `data` and `command` go to the manifest.

    Under torchrun every process calls it with the same arguments; the first one writes. Raises
    TrainingFailed (bad examples, another run's directory, a full disk, losses that are no numbers
    even at half the rate, no memory for the smallest batch), BadInput (a query without room).
    """
    raise NotImplementedError
