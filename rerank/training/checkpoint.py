"""A checkpoint: a model directory that the loader serves, with a manifest that says where it came
from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rerank.errors import TrainingFailed
from rerank.ranking.calibration_file import ModelCalibration, save_model_calibration

from .bases import Trainable

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "numpy")


@dataclass(frozen=True)
class Manifest:
    """`task`: "pointwise" or "pairwise". `base`: `bases.facts`. `data`: name -> {"sha256",
    "queries" or "pairs", ...}. `metrics`: of the validation, and `before` of the base as it came.
    `seconds`: of the training. `commit`: of the checkout that trained, "" outside of one.
    `created`: when, in UTC."""

    task: str = "pointwise"
    base: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
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
    beside = directory.with_name(directory.name + ".part")

    def write() -> None:
        shutil.rmtree(beside, ignore_errors=True)
        base.save(beside)
        if calibration is not None:
            save_model_calibration(beside, calibration)
        _write_json(beside / MANIFEST, asdict(manifest))
        for file in beside.rglob("*"):
            if file.is_file():
                _flush(file)
        put_in_place(beside, directory)

    try:
        _refuse_full_disk(directory, write)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def put_in_place(new: Path, directory: Path) -> None:
    """`new` becomes `directory`; what lay there goes last. A kill in between leaves it as
    `<name>.old`, which `recover` puts back. Raises OSError."""
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> None:
    """After a kill: a checkpoint that was being replaced is there again."""
    old = directory.with_name(directory.name + ".old")
    if old.is_dir() and not directory.exists():
        old.rename(directory)


def add_to_manifest(directory: Path, **changes: Any) -> Manifest:
    """Replaces fields of a checkpoint's manifest, `notes` and `data` by adding to them; whole or
    not at all. Raises TrainingFailed."""
    old = read_manifest(directory)
    for name in ("notes", "data"):
        if name in changes:
            changes[name] = {**getattr(old, name), **changes[name]}
    new = replace(old, **changes)
    beside = directory / f"{MANIFEST}.part"

    def write() -> None:
        _write_json(beside, asdict(new))
        beside.replace(directory / MANIFEST)

    _refuse_full_disk(directory, write)
    return new


def read_manifest(directory: Path) -> Manifest:
    """Raises TrainingFailed when there is none or it is broken."""
    file = directory / MANIFEST
    known = {each.name for each in fields(Manifest)}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = Manifest(**{name: value for name, value in values.items() if name in known})
        return replace(found, command=tuple(found.command))
    except FileNotFoundError as error:
        raise TrainingFailed(f"{directory} is no checkpoint: it has no {MANIFEST}.") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TrainingFailed(f"{file} cannot be read: {error}. Train again.") from error


def surroundings() -> dict[str, Any]:
    """The manifest's `packages`, `commit` and `created`."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES if _version(name)},
        "commit": _commit(Path(__file__).resolve().parent),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit(directory: Path) -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(directory), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _refuse_full_disk(directory: Path, write: Callable[[], None]) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise TrainingFailed(
            f"The checkpoint {directory.name} cannot be written: {reason}. The one before, if "
            "any, is untouched. Make room and start the same training again; it goes on from its "
            "last state."
        ) from error


def _write_json(file: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
    file.write_text(text, encoding="utf-8")


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
