"""Checkpoints and states are whole or not there."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rerank.errors import TrainingFailed
from rerank.inference.loading import load_reranker
from rerank.ranking.calibration import Platt
from rerank.ranking.calibration_file import ModelCalibration, load_model_calibration
from rerank.training.bases import open_base
from rerank.training.checkpoint import (
    Manifest,
    add_to_manifest,
    put_in_place,
    read_manifest,
    recover,
    write_checkpoint,
)
from rerank.training.loop import train

from ..tiny import save_cross_encoder
from .small import SETTINGS, lists


@contextmanager
def no_room(size: int = 100_000) -> Iterator[None]:
    """The kernel lets no file grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    base = open_base(str(save_cross_encoder(tmp_path / "model")), device="cpu")
    directory = tmp_path / "checkpoint"
    write_checkpoint(directory, base, Manifest(steps=1))
    with no_room(), pytest.raises(TrainingFailed, match=r"File too large.*Make room"):
        write_checkpoint(directory, base, Manifest(steps=2))
    assert read_manifest(directory).steps == 1
    load_reranker(str(directory), "cpu", "float32")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint", "model"]


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    model, run = str(save_cross_encoder(tmp_path / "model")), tmp_path / "run"
    limits = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 5 and not limits:
            limits.append(no_room())
            limits[0].__enter__()

    try:
        with pytest.raises(TrainingFailed, match=r"cannot be saved: File too large. Make room"):
            train(open_base(model), lists(), SETTINGS, directory=run, on_event=on_event)
    finally:
        limits[0].__exit__(None, None, None)
    assert [each.name for each in (run / "state").iterdir()] == ["state.pt"]
    started = []

    def again(event: dict[str, Any]) -> None:
        if event["event"] == "started":
            started.append(event["step"])

    assert train(open_base(model), lists(), SETTINGS, directory=run, on_event=again).steps == 8
    assert started == [3]


def test_a_checkpoint_holds_manifest_and_calibration(tmp_path: Path) -> None:
    base = open_base(str(save_cross_encoder(tmp_path / "model")), device="cpu")
    directory = tmp_path / "checkpoint"
    calibration = ModelCalibration(Platt(2.0, 0.5), note="fitted on nothing")
    manifest = Manifest(base={"name": "tiny"}, data={"train": {"queries": 3}}, command=("a", "b"))
    write_checkpoint(directory, base, manifest, calibration)
    assert read_manifest(directory) == manifest
    assert load_model_calibration(directory) == calibration
    added = add_to_manifest(directory, notes={"stage": "x"}, data={"candidates": {"sha256": "y"}})
    assert read_manifest(directory) == added
    assert added.data.keys() == {"train", "candidates"} and added.command == ("a", "b")
    assert replace(added, notes={}, data=manifest.data) == manifest


def test_a_kill_while_a_checkpoint_is_replaced_loses_none(tmp_path: Path) -> None:
    for name in ("checkpoint.old", "next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    recover(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "file").read_text() == "checkpoint.old"
    put_in_place(tmp_path / "next", tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "file").read_text() == "next"
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_a_directory_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="is no checkpoint"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"steps": ')
    with pytest.raises(TrainingFailed, match="cannot be read"):
        read_manifest(tmp_path)
