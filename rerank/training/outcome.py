"""How a run ended. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rerank.errors import TrainingFailed

FILE_NAME = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """`checkpoint`: the model directory, None when cancelled before there was one. `metrics` of it:
    "nDCG@10", "pairwise accuracy" and "squared error" (lists), or "pairwise accuracy" and "loss"
    (pairs); empty without validation. `before`: the same of the base as it came ("step 0").
    `best_step`: the step the checkpoint is of. `skipped`: steps whose loss or gradient was no
    number. `seconds`: of all runs together. `sentences`: what a person should know."""

    state: Literal["done", "cancelled"]
    checkpoint: Path | None
    steps: int
    best_step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0
    sentences: tuple[str, ...] = ()


def write_outcome(directory: Path, digest: str, outcome: Outcome) -> None:
    """Of a run that is done; `digest` of what it was made from. Raises TrainingFailed."""
    found = {**asdict(outcome), "digest": digest, "checkpoint": "checkpoint"}
    beside = directory / f"{FILE_NAME}.part"
    try:
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(directory / FILE_NAME)
    except OSError as error:
        raise TrainingFailed(f"{FILE_NAME} cannot be written: {error.strerror}.") from error


def read_outcome(directory: Path, digest: str) -> Outcome | None:
    """None when no run is done here, or its checkpoint is gone. Raises TrainingFailed when it was
    another run."""
    file = directory / FILE_NAME
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        other = found.pop("digest") != digest
        found["checkpoint"] = directory / found["checkpoint"]
        found["sentences"] = tuple(found["sentences"])
        outcome = Outcome(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingFailed(f"{file} cannot be read: {error}. Remove it to train anew.") from error
    if other:
        raise TrainingFailed(
            f"{directory} holds a training with other data, settings or another base. Choose "
            "another directory, or remove that one."
        )
    return outcome if outcome.checkpoint and outcome.checkpoint.is_dir() else None
