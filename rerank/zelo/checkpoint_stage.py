"""The checkpoint of a run: the best training's, with the digest of every file it was made from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank.errors import BadStage
from rerank.ranking.calibration_file import save_model_calibration

from .calibration_stage import calibration_notes, read_calibration
from .records import input_digest
from .training_stage import NOTE, Trained, best_of

# What the stages of a run leave directly in its directory begins with one of these.
OWN_FILES = ("round-", "candidates", "pairs")


def keep_checkpoint(
    directory: Path,
    output: Path,
    candidates: Path,
    trained: Sequence[Trained],
    calibration: Path,
    notes: Mapping[str, Any],
) -> None:
    """The best of `trained` as `output`, written beside it and put in its place, with the map that
    the file `calibration` holds; its manifest names all stage files of the run in `directory`.
    Raises BadStage, TrainingFailed, OSError; then what lay there is as it was."""
    from rerank.training.checkpoint import add_to_manifest

    best = best_of(trained)
    assert best.checkpoint is not None
    beside, old = (output.with_name(f"{output.name}.{end}") for end in ("part", "old"))
    for leftover in (beside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        shutil.copytree(best.checkpoint, beside, copy_function=_link_or_copy)
    except shutil.Error as error:
        # One entry for each file: (source, target, reason).
        raise BadStage(
            f"{output} cannot be written: {error.args[0][0][2]}. What lay there is untouched."
        ) from error
    if (fitted := read_calibration(calibration)) is not None:
        save_model_calibration(beside, fitted)
    files = [each for each in sorted(directory.rglob("*.jsonl")) if _is_stage(directory, each)]
    data = {each.relative_to(directory).as_posix(): each for each in files}
    if candidates.parent != directory:
        data[candidates.name] = candidates
    own = {
        "seeds": {each.directory.name: dict(each.metrics) for each in trained},
        "step_0": dict(best.before),
        "calibration": calibration_notes(calibration),
    }
    add_to_manifest(
        beside,
        data={name: {"sha256": input_digest(path)} for name, path in data.items()},
        notes={**notes, **own},
    )
    if output.exists():
        output.rename(old)
    beside.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def _is_stage(directory: Path, path: Path) -> bool:
    inner = path.relative_to(directory).parts
    return inner[0].startswith(OWN_FILES) and (len(inner) <= 2 or path.name == NOTE)


def _link_or_copy(source: str, target: str) -> None:
    """Weights are large and never changed in place; other files may be."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)
