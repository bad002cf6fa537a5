"""What a stopped or killed run goes on from: `state/state.pt` in its directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from rerank.errors import TrainingFailed

_FILE = "state.pt"


@dataclass
class Progress:
    """Where a run is. `step`: the next one, from 0. `digest`: of base, examples and settings.

    `best`: metrics of the best validation and `best_step` where it was; `since_best` validations
    ago. `last`: metrics of the last one, `before` of the base. `bad`: steps in a row whose loss was
    no number, `skipped`: all of them. `returns`: how often the run went back to its last good
    state, and `factor` what that made of the rate. `seconds` of all runs, `rows` read, `unreadable`
    examples left out.
    """

    digest: str
    step: int = 0
    best: dict[str, float] | None = None
    best_step: int = 0
    since_best: int = 0
    last: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    bad: int = 0
    skipped: int = 0
    returns: int = 0
    factor: float = 1.0
    seconds: float = 0.0
    rows: int = 0
    unreadable: int = 0


def save_state(
    directory: Path,
    progress: Progress,
    weights: Mapping[str, torch.Tensor],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Whole or not at all. Chance needs no saving: every step draws its own from seed, step and
    process. Raises TrainingFailed when the disk is full; the state before lies there still."""
    beside = directory / "state" / f"{_FILE}.part"
    saved = {
        "progress": asdict(progress),
        "weights": {name: values.detach() for name, values in weights.items()},
        "optimiser": optimiser.state_dict(),
    }
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(beside.with_name(_FILE))
    except (OSError, RuntimeError) as error:
        raise TrainingFailed(
            f"The state of the training cannot be saved: {_reason(error)}. Make room and start the "
            "same training again; it goes on from the state saved before."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _reason(error: BaseException) -> str:
    """What the disk said; the library may raise an error of its own over that."""
    under: BaseException | None = error
    while under is not None:
        if isinstance(under, OSError) and under.errno:
            return os.strerror(under.errno)
        under = under.__context__
    return str(error)


def load_state(
    directory: Path,
    weights: Mapping[str, torch.Tensor],
    optimiser: torch.optim.Optimizer,
) -> Progress | None:
    """Puts the saved values into `weights` and `optimiser`; None when there is no state. Raises
    TrainingFailed when it is broken or of another base."""
    saved = _read(directory, torch.device("cpu"))
    if saved is None:
        return None
    stored = saved["weights"]
    if {name: each.shape for name, each in stored.items()} != {
        name: each.shape for name, each in weights.items()
    }:
        raise TrainingFailed(
            f"The state in {directory} belongs to another base. Choose another directory."
        )
    with torch.no_grad():
        for name, values in weights.items():
            values.copy_(stored[name])
    optimiser.load_state_dict(saved["optimiser"])
    return _progress(saved)


def saved_progress(directory: Path) -> Progress | None:
    """Where the saved state is, without loading weights anywhere. Raises TrainingFailed."""
    saved = _read(directory, torch.device("meta"))
    return None if saved is None else _progress(saved)


def remove_state(directory: Path) -> None:
    """When the run is done: a state is three times as large as the model."""
    for file in (directory / "state").glob("*"):
        file.unlink()
    if (directory / "state").is_dir():
        (directory / "state").rmdir()


def _read(directory: Path, device: torch.device) -> dict[str, Any] | None:
    file = directory / "state" / _FILE
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # the library raises anything for a broken file
        raise TrainingFailed(
            f"The state {file} cannot be read: {error}. Remove it to begin anew."
        ) from error
    return found


def _progress(saved: dict[str, Any]) -> Progress:
    known = {each.name for each in fields(Progress)}
    return Progress(**{k: v for k, v in saved["progress"].items() if k in known})
