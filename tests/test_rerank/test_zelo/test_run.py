"""The whole pipeline on a tiny world: once, again, changed, killed and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rerank.errors import StageFailed
from rerank.inference.loading import load_reranker
from rerank.types import RerankRequest
from rerank.zelo.evaluation_stage import evaluation_table
from rerank.zelo.recipe import read_recipe
from rerank.zelo.records import input_digest
from rerank.zelo.run import run
from rerank.zelo.watching import Event

from .small import TINY, tiny_recipe, tiny_world, without

ONE_ROUND = TINY.replace("rounds = 1", "rounds = 0")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_pipeline_goes_from_a_folder_to_a_checkpoint_and_a_table_and_then_keeps_all(
    tmp_path: Path,
) -> None:
    two_seeds = TINY.replace("save_every = 1", "seeds = [3, 4]")
    recipe, directory = tiny_recipe(tmp_path, two_seeds), tmp_path / "run"
    events: list[Event] = []
    outcome = run(recipe, directory, on_event=events.append)
    assert outcome.state == "done" and outcome.checkpoint == directory / "checkpoint"

    manifest = json.loads((directory / "checkpoint" / "manifest.json").read_text())
    for name in ("candidates.jsonl", "round-0/scores.jsonl", "round-1/gold-pairs.jsonl"):
        assert manifest["data"][name]["sha256"] == input_digest(directory / name)
    assert manifest["notes"]["rounds"] == 2
    assert set(manifest["notes"]["seeds"]) == {"pointwise-3", "pointwise-4"}
    assert manifest["notes"]["evaluation"] == outcome.table
    assert "nDCG@10" in manifest["metrics"]

    assert outcome.table is not None and outcome.evaluation is not None
    rows = outcome.table["folders"]["market"]
    assert list(rows) == ["before", "step 0", "after", "seed 3", "seed 4"]
    assert rows["after"] in (rows["seed 3"], rows["seed 4"])
    # A new head starts at zero, so that the base leaves the first stage's order as it is.
    assert rows["step 0"]["mean"] == rows["before"]["mean"]
    assert set(rows["after"]["minus"]) == {"before", "step 0"}
    assert "after" in evaluation_table(outcome.evaluation)

    trained = load_reranker(str(outcome.checkpoint), "cpu")
    scores = trained.score(RerankRequest("oak lamp to buy", ["An oak lamp.", "A tin of paint."]))
    assert len(scores.logits) == 2

    progress = [each for each in events if each.state == "progress" and each.done == each.total]
    assert {"pairs", "judging", "pairwise judging", "scores", "evaluation"} <= {
        each.stage for each in progress
    }
    trainings = [each.training for each in events if each.training]
    assert any("loss" in each for each in trainings)

    again: list[Event] = []
    assert run(recipe, directory, on_event=again.append).table == outcome.table
    ended = [each for each in again if each.state == "done"]
    assert {each.stage for each in ended if not each.kept} == {"checkpoint"}
    assert not [each for each in again if each.state == "training"]


def test_a_changed_fit_does_again_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    shorter = without(ONE_ROUND, "second_pass", "evaluate", "pairwise", "pointwise")
    path, directory = tiny_world(tmp_path, shorter), tmp_path / "run"
    first = run(read_recipe(path), directory)
    assert first.state == "done" and first.checkpoint is None
    path.write_text(shorter + '\n[fit]\nlink = "bradley-terry"\n')
    events: list[Event] = []
    run(read_recipe(path), directory, on_event=events.append)
    done = {each.stage for each in events if each.state == "done" and not each.kept}
    assert done == {"scores"}


@pytest.mark.process
def test_a_run_killed_in_two_places_ends_as_one_that_was_not(tmp_path: Path) -> None:
    recipe = without(ONE_ROUND, "second_pass", "evaluate").replace(
        "save_every = 1", "save_every = 1\nepochs = 3"
    )
    path = tiny_world(tmp_path, recipe)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(read_recipe(path), whole).state == "done"

    _run_and_kill(path, killed, killed / "round-0" / "gold-answers.jsonl", 1)
    assert not (killed / "round-0" / "pointwise-0" / "events.jsonl").exists()
    _run_and_kill(path, killed, killed / "round-0" / "pointwise-0" / "events.jsonl", 6)
    assert not (killed / "checkpoint").exists()
    steps = []

    def note(event: Event) -> None:
        if event.stage == "pointwise training" and event.training and "loss" in event.training:
            steps.append(event.done)

    outcome = run(read_recipe(path), killed, on_event=note)
    assert outcome.checkpoint is not None
    # It went on from a saved step.
    assert min(steps) > 1
    a, b = (load_file(each / "checkpoint" / "model.safetensors") for each in (whole, killed))
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def _run_and_kill(recipe: Path, directory: Path, watched: Path, least: int) -> None:
    """Kills the run without warning once `watched` has so many lines."""
    command = [sys.executable, "-m", "rerank", "zelo", "run", str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--directory", str(directory)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not watched.exists() or watched.read_bytes().count(b"\n") < least:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end, f"{watched} never came"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_a_stopped_run_says_so_and_goes_on_when_started_again(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, without(ONE_ROUND, "second_pass", "evaluate", "pairwise"))
    directory = tmp_path / "run"
    training: list[Event] = []

    def note(event: Event) -> None:
        if event.stage == "pointwise training" and event.state == "training":
            training.append(event)

    stopped = run(recipe, directory, on_event=note, stopped=lambda: len(training) > 4)
    assert stopped.state == "cancelled" and stopped.checkpoint is None
    assert run(recipe, directory).state == "done"


def test_two_runs_do_not_work_in_one_directory(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, without(ONE_ROUND, "second_pass", "evaluate", "pointwise"))
    told: list[str] = []

    def second(event: Event) -> None:
        if event.stage == "pairs" and not told:
            with pytest.raises(StageFailed) as failure:
                run(recipe, tmp_path / "run")
            told.append(str(failure.value))

    run(recipe, tmp_path / "run", on_event=second)
    assert told == [f"Another run is at work in {tmp_path / 'run'}."]


def test_recipes_and_runs_can_be_had_without_torch() -> None:
    code = "import sys, rerank.zelo.run, rerank.commands.zelo; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr
