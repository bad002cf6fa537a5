"""What a second start may meet: another recipe, a kill in a bad moment, several processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from rerank.training.settings import Settings
from rerank.zelo.recipe import Training, recipe_of
from rerank.zelo.records import Header, write_stage
from rerank.zelo.run import run
from rerank.zelo.training_stage import train_pointwise
from tests.ports import free_port

from ..http_servers import Asked, serving
from ..tiny import save_headless
from .small import TINY, tiny_world, without
from .test_bad_runs import chat, written


def scores_beside(candidates: Path) -> Path:
    path = candidates.with_name("scores.jsonl")
    records = (
        {
            "query_id": f"q{query}",
            "documents": [{"id": f"d{place}", "target": place / 8} for place in range(8)],
        }
        for query in range(6)
    )
    write_stage(path, Header("scores"), records)
    return path


def test_a_judge_that_joins_later_is_asked_each_pair_once(tmp_path: Path) -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        text = f"<score>{'-' if len(asked.body['messages'][1]['content']) % 2 else ''}0.50</score>"
        return 200, {"choices": [{"message": {"content": text}}]}

    recipe = without(TINY, "pairwise", "evaluate").replace("rounds = 1", "rounds = 2")
    path = tiny_world(tmp_path, recipe, queries=6)
    with serving(answer) as server:
        assert run(recipe_with(path), tmp_path / "run").state == "done"
        assert (tmp_path / "run" / "round-1" / "answers.jsonl").exists()
        for _ in range(2):
            joined = recipe_with(path, chat(server.url))
            assert run(joined, tmp_path / "run").state == "done"
        asked = [str(body["messages"]) for body in server.bodies]
    assert len(asked) > 20
    assert len(set(asked)) == len(asked)


def recipe_with(path: Path, *judges: dict[str, Any]) -> Any:
    import tomllib

    table = tomllib.loads(path.read_text())
    return recipe_of({**table, "judges": [*table["judges"], *judges]}, path.parent)


def test_a_kill_while_an_older_training_is_cleared_away_does_not_block_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = written(tmp_path)
    scores, directory = scores_beside(candidates), tmp_path / "pointwise"
    base = str(save_headless(tmp_path / "base"))
    before = Training(base, settings=Settings(max_steps=1, batch=2, held_out=0.2))
    after = Training(base, settings=Settings(max_steps=2, batch=2, held_out=0.2))
    train_pointwise(candidates, scores, directory, before, device="cpu")
    whole = shutil.rmtree

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        """What a kill leaves: some files are gone, the note among them, others are not."""
        if (folder / "stage.jsonl").exists():
            (folder / "stage.jsonl").unlink()
            raise KeyboardInterrupt
        whole(folder, ignore_errors)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            train_pointwise(candidates, scores, directory, after, device="cpu")
    trained = train_pointwise(candidates, scores, directory, after, device="cpu")
    assert trained.steps == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "base",
        "candidates.jsonl",
        "pointwise",
        "scores.jsonl",
    ]


@pytest.mark.process
def test_two_processes_train_in_a_directory_that_is_there_already(tmp_path: Path) -> None:
    candidates = written(tmp_path)
    scores, directory = scores_beside(candidates), tmp_path / "pointwise"
    save_headless(tmp_path / "base")
    (tmp_path / "recipe.toml").write_text(
        'device = "cpu"\n[data]\ncandidates = "candidates.jsonl"\n[[judges]]\nkind = "people"\n'
        'file = "candidates.jsonl"\n[pointwise]\nbase = "base"\nbatch = 2\nheld_out = 0.2\n'
    )
    # As the first of two processes leaves it for a moment, before its note is whole.
    directory.mkdir()
    files = (tmp_path / "recipe.toml", candidates, scores, directory)
    command = [sys.executable, "-m", "rerank", "zelo", "train-pointwise", *map(str, files)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    try:
        said = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said
    assert (directory / "checkpoint" / "manifest.json").is_file()
