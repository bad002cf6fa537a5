"""A checkpoint: a model directory that the loader serves, with a manifest that says where it came
from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank.ranking.calibration_file import ModelCalibration

from .bases import Trainable

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """`base`: `bases.facts`. `data`: name -> {"sha256", "queries" or "pairs", ...}, files by the
    caller, lists by the loop. `metrics`: of the validation. `seconds`: of the training."""

    task: str = "pointwise"
    base: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    skipped: int = 0
    seconds: float = 0.0
    seed: int = 0
    command: tuple[str, ...] = ()
    commit: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    created: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(
    directory: Path,
    base: Trainable,
    manifest: Manifest,
    calibration: ModelCalibration | None = None,
) -> None:
    """Writes beside `directory`, then puts it in its place. Raises TrainingFailed when the disk is
    full, with what lay there untouched."""
    raise NotImplementedError


def add_to_manifest(directory: Path, **changes: Any) -> Manifest:
    """Replaces fields of a checkpoint's manifest, `notes` and `data` by adding to them; whole or
    not at all. Raises TrainingFailed."""
    raise NotImplementedError


def read_manifest(directory: Path) -> Manifest:
    """Raises TrainingFailed when there is none or it is broken."""
    raise NotImplementedError
