"""Training learns, can be stopped and killed, and survives what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rerank.errors import TrainingFailed
from rerank.inference.loading import load_reranker
from rerank.training.bases import Trainable, TrainingRow, open_base
from rerank.training.checkpoint import read_manifest
from rerank.training.events import read_events
from rerank.training.loop import Outcome, train
from rerank.training.settings import Settings
from rerank.types import RerankRequest
from tests.ports import free_port

from ..tiny import save_cross_encoder, save_headless
from .small import SETTINGS, gradients, lists, pairs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def whole_run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    train(open_base(str(model), device="cpu"), lists(), SETTINGS, directory=directory)
    return directory


def program(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.test_rerank.test_training.small", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoint" / "model.safetensors")


def same_weights(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(
        torch.equal(values, second[name]) for name, values in first.items()
    )


@pytest.mark.parametrize("loss", ["mse", "bce", "listwise"])
def test_training_learns_and_its_checkpoint_serves(tmp_path: Path, loss: Any) -> None:
    body = save_headless(tmp_path / "body")
    settings = Settings(
        loss=loss, epochs=8, batch=4, rate=3e-3, micro_batch_tokens=512, held_out=0.2
    )
    heard: list[dict[str, Any]] = []
    outcome = train(
        open_base(str(body), device="cpu"),
        lists(24),
        settings,
        directory=tmp_path / "run",
        on_event=heard.append,
        command=("train", "fruit"),
    )
    assert outcome.state == "done" and outcome.checkpoint is not None
    assert outcome.metrics["nDCG@10"] > max(outcome.before["nDCG@10"], 0.9)
    assert outcome.metrics["pairwise accuracy"] > 0.9
    served = load_reranker(str(outcome.checkpoint), "cpu", "float32")
    scores = served.score(RerankRequest("fruit 3", ["about clouds and cars", "about pears"]))
    assert scores.logits[1] > scores.logits[0]
    assert heard == read_events(tmp_path / "run")
    steps = [event for event in heard if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, outcome.steps + 1))
    assert steps[0]["lr"] > 0 and steps[-1]["lr"] < steps[5]["lr"]
    assert {"loss", "pairs_per_second", "eta_seconds", "seconds", "steps"} <= steps[0].keys()
    manifest = read_manifest(outcome.checkpoint)
    assert manifest.settings["loss"] == loss and manifest.command == ("train", "fruit")
    assert manifest.data["train"]["queries"] + manifest.data["held_out"]["queries"] == 24
    assert manifest.metrics == outcome.metrics and manifest.packages["torch"]
    assert not (tmp_path / "run" / "state").exists()


def test_a_pairwise_model_learns_which_document_is_better(model: Path, tmp_path: Path) -> None:
    settings = Settings(
        loss="pair_bce", epochs=10, batch=8, rate=3e-3, micro_batch_tokens=512, held_out=0.25
    )
    base = open_base(str(model), device="cpu")
    outcome = train(base, pairs(40), settings, directory=tmp_path / "run")
    assert outcome.metrics["pairwise accuracy"] > 0.9
    assert outcome.metrics["loss"] < outcome.before["loss"]
    assert read_manifest(tmp_path / "run" / "checkpoint").task == "pairwise"


def test_a_killed_run_ends_with_the_weights_of_one_never_killed(
    model: Path, tmp_path: Path, whole_run: Path
) -> None:
    killed = program(model, tmp_path / "run", 5)
    errors = killed.communicate(timeout=120)[1]
    assert killed.returncode == -signal.SIGKILL, errors
    assert [e["step"] for e in read_events(tmp_path / "run") if e["event"] == "step"][-1] == 5
    outcome = train(
        open_base(str(model), device="cpu"), lists(), SETTINGS, directory=tmp_path / "run"
    )
    assert same_weights(tmp_path / "run", whole_run)
    steps = [e for e in read_events(tmp_path / "run") if e["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, outcome.steps + 1))
    expected = [e["loss"] for e in read_events(whole_run) if e["event"] == "step"]
    assert [event["loss"] for event in steps] == expected
    # What is read again is not counted again.
    rows = [e["rows"] for e in read_events(whole_run) if e["event"] == "step"]
    assert [event["rows"] for event in steps] == rows


def test_a_stopped_run_goes_on_where_it_was(model: Path, tmp_path: Path, whole_run: Path) -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked == 5

    def again() -> Outcome:
        base = open_base(str(model), device="cpu")
        return train(base, lists(), SETTINGS, directory=tmp_path / "run", stopped=stopped)

    outcome = again()
    assert (outcome.state, outcome.steps) == ("cancelled", 4)
    assert again().state == "done"
    assert same_weights(tmp_path / "run", whole_run)
    # What is done is not done again.
    before = asked
    assert again().state == "done" and asked == before


def test_another_runs_directory_is_refused(model: Path, whole_run: Path, tmp_path: Path) -> None:
    base = open_base(str(model), device="cpu")
    with pytest.raises(TrainingFailed, match="other data, settings or another base"):
        train(base, lists(), replace(SETTINGS, rate=1e-4), directory=whole_run)
    with pytest.raises(TrainingFailed, match="other data, settings or another base"):
        train(base, lists(21), SETTINGS, directory=whole_run)


def test_micro_batches_change_no_gradient(model: Path) -> None:
    for loss, targets in (("bce", 30), ("listwise", 5), ("mse", 30)):
        found = []
        for tokens, checkpointing in ((32, False), (4096, True)):
            settings = replace(SETTINGS, loss=loss, micro_batch_tokens=tokens)  # type: ignore[arg-type]
            base = open_base(str(model), device="cpu")
            base.checkpoint_layers(checkpointing)
            base.module.train()
            found.append((gradients(base, settings), dict(base.module.named_parameters())))
        (one, first), (two, second) = found
        assert one == pytest.approx(two, abs=1e-6) and one > 0.001 * targets
        for name, weight in first.items():
            assert torch.allclose(weight.grad, second[name].grad, atol=1e-6), name  # type: ignore[arg-type]


class SmallMemory:
    """A base whose device holds so many rows at once."""

    def __init__(self, base: Trainable, rows: int) -> None:
        self._base, self._rows = base, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def logits(self, rows: Sequence[TrainingRow]) -> torch.Tensor:
        if len(rows) > self._rows:
            raise MemoryError
        return self._base.logits(rows)


def test_a_full_memory_makes_micro_batches_smaller(model: Path) -> None:
    settings = replace(SETTINGS, micro_batch_tokens=4096)
    plain = open_base(str(model), device="cpu")
    small = open_base(str(model), device="cpu")
    expected = gradients(plain, settings)
    assert gradients(SmallMemory(small, 3), settings) == pytest.approx(expected, abs=1e-6)
    for one, two in zip(plain.module.parameters(), small.module.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        assert torch.allclose(one.grad, two.grad, atol=1e-6)
    with pytest.raises(TrainingFailed, match="does not hold the smallest batch"):
        gradients(SmallMemory(small, 0), settings)


def test_without_keep_best_the_checkpoint_is_the_last_steps(model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, keep_best=False, epochs=3, validate_every=2)
    outcome = train(open_base(str(model), device="cpu"), lists(), settings, directory=tmp_path)
    assert outcome.best_step == outcome.steps == 12
    found = [e["metrics"] for e in read_events(tmp_path) if e["event"] == "validation"]
    assert read_manifest(tmp_path / "checkpoint").metrics == outcome.metrics == found[-1]


def test_two_processes_train_as_one(model: Path, tmp_path: Path, whole_run: Path) -> None:
    run = tmp_path / "run"
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [program(model, run, **place, RANK=str(rank)) for rank in range(2)]
    for process in both:
        errors = process.communicate(timeout=180)[1]
        assert process.returncode == 0, errors
    base = open_base(str(model), device="cpu")
    gradients(base, SETTINGS)
    found = load_file(run / "gradients.safetensors")
    for name, weight in base.module.named_parameters():
        assert weight.grad is not None
        assert torch.allclose(found[name], weight.grad, atol=1e-6), name
    losses = [
        [event["loss"] for event in read_events(each) if event["event"] == "step"]
        for each in (run, whole_run)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    metrics = [read_manifest(each / "checkpoint").metrics for each in (run, whole_run)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-3)


def overflowing(base: Any, steps: set[int]) -> Any:
    """Makes the weights so large before the steps after `steps` that the pass overflows."""

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] in steps:
            steps.remove(event["step"])
            with torch.no_grad():
                for weight in base.module.parameters():
                    weight.mul_(1e38)

    return on_event


def test_an_overflow_sends_training_back_to_its_last_good_state(
    model: Path, tmp_path: Path
) -> None:
    base = open_base(str(model), device="cpu")
    settings = replace(SETTINGS, epochs=3)
    heard = overflowing(base, {4})
    outcome = train(base, lists(), settings, directory=tmp_path / "run", on_event=heard)
    assert outcome.state == "done" and outcome.skipped == 3
    assert any("half the rate" in sentence for sentence in outcome.sentences)
    events = read_events(tmp_path / "run")
    kinds = [event["event"] for event in events]
    back = kinds.index("returned")
    assert kinds[back - 2 : back] == ["skipped", "skipped"]
    assert events[back]["step"] == 3
    first, second = (e for e in events if e["event"] == "step" and e["step"] == 4)
    assert second["lr"] == pytest.approx(first["lr"] / 2)
    assert second["loss"] == first["loss"]
    assert outcome.checkpoint is not None
    manifest = read_manifest(outcome.checkpoint)
    assert (manifest.steps, manifest.metrics) == (outcome.best_step, outcome.metrics)
    scores = load_reranker(str(outcome.checkpoint), "cpu", "float32")
    assert scores.score(RerankRequest("fruit", ["apples"])).logits.shape == (1,)


def test_a_second_overflow_ends_training_with_a_sentence(model: Path, tmp_path: Path) -> None:
    base = open_base(str(model), device="cpu")
    heard = overflowing(base, {4, 5})
    with pytest.raises(TrainingFailed, match=r"again with half the rate.*smaller rate"):
        train(base, lists(), replace(SETTINGS, epochs=3), directory=tmp_path, on_event=heard)


def test_a_rate_that_overflows_at_once_ends_training(model: Path, tmp_path: Path) -> None:
    base = open_base(str(model), device="cpu")
    settings = replace(SETTINGS, rate=1e30, loss="listwise", warmup=0.0)
    with pytest.raises(TrainingFailed, match="no number 3 times in a row"):
        train(base, lists(), settings, directory=tmp_path / "run")


def test_training_ends_early_when_nothing_gets_better(model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=6, rate=1e-9, validate_every=2, patience=2)
    outcome = train(open_base(str(model), device="cpu"), lists(), settings, directory=tmp_path)
    assert (outcome.steps, outcome.best_step) == (6, 2)
    assert "no better than step 2" in outcome.sentences[-1]


def test_bfloat16_trains_too(model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, autocast=True, epochs=4, rate=3e-3)
    outcome = train(open_base(str(model), device="cpu"), lists(), settings, directory=tmp_path)
    losses = [e["loss"] for e in read_events(tmp_path) if e["event"] == "step"]
    assert losses[-1] < losses[0] and outcome.state == "done"


def test_queries_without_room_are_left_out_and_counted(model: Path, tmp_path: Path) -> None:
    examples = [*lists(), replace(lists()[0], query="endless " * 200)]
    settings = replace(SETTINGS, held_out=0.0, epochs=1)
    outcome = train(open_base(str(model), device="cpu"), examples, settings, directory=tmp_path)
    assert outcome.state == "done" and "leaves documents no room" in outcome.sentences[-1]


def test_bad_examples_and_settings_are_named(model: Path, tmp_path: Path) -> None:
    base = open_base(str(model), device="cpu")
    good = lists(3)
    bad = {
        "nothing to train on": [],
        "cannot be trained on together": [*good, *pairs(1)],
        "has 6 documents but 1 targets": [replace(good[0], targets=(0.5,))],
        "they lie in 0 to 1": [replace(good[0], targets=(1.5,) * 6)],
        "has no documents": [replace(good[0], documents=(), targets=())],
        "is for pairs": pairs(3),
        "one query only": good[:1],
    }
    for sentence, examples in bad.items():
        with pytest.raises(TrainingFailed, match=sentence):
            train(base, examples, SETTINGS, directory=tmp_path / "run")  # type: ignore[arg-type]
    (tmp_path / "outcome.json").write_text(json.dumps([]))
    with pytest.raises(TrainingFailed, match=r"outcome\.json cannot be read"):
        train(base, good, SETTINGS, directory=tmp_path)
