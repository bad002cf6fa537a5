"""What somebody at a terminal sees and does: bars, and Ctrl-C."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

from rerank.__main__ import main
from rerank.zelo.records import (
    Candidates,
    Document,
    Header,
    input_digest,
    write_candidates,
    write_stage,
)

from ..http_servers import Asked, serving
from .small import TINY, lines, tiny_world


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def candidates_in(folder: Path) -> Path:
    path = folder / "candidates.jsonl"
    documents = [
        tuple(Document(f"d{at}", f"notice {query} {at}") for at in range(6)) for query in range(8)
    ]
    found = [Candidates(f"q{at}", f"query {at}", each) for at, each in enumerate(documents)]
    write_candidates(path, found)
    return path


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As at a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_the_answers_that_were_paid_for_and_asks_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ctrl_c: None
) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        if len(server.asked) == 5:
            signal.pthread_kill(main_thread, signal.SIGINT)
        return 200, {"choices": [{"message": {"content": "<score>0.50</score>"}}]}

    candidates = candidates_in(tmp_path)
    pairs, answers = tmp_path / "pairs.jsonl", tmp_path / "answers.jsonl"
    assert main(["zelo", "pairs", str(candidates), str(pairs)]) == 0
    with serving(answer) as server:
        (tmp_path / "recipe.toml").write_text(
            '[data]\ncandidates = "candidates.jsonl"\n[[judges]]\nkind = "openai"\nparallel = 1\n'
            f'model = "judge"\nurl = "{server.url}"\ninput_price = 0\noutput_price = 0\n'
        )
        recipe = str(tmp_path / "recipe.toml")
        assert main(["zelo", "judge", recipe, str(candidates), str(pairs), str(answers)]) == 130
        assert 5 <= len(server.asked) < 64
        assert len(lines(answers)) == len(server.asked)
    assert "Stopped." in capsys.readouterr().err


def test_a_training_by_itself_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    recipe = tiny_world(tmp_path, TINY, queries=3)
    candidates, scores = candidates_in(tmp_path), tmp_path / "scores.jsonl"
    write_stage(
        scores,
        Header("scores", {"candidates": input_digest(candidates)}),
        [
            {
                "query_id": f"q{query}",
                "documents": [{"id": f"d{at}", "target": at / 6} for at in range(6)],
            }
            for query in range(8)
        ],
    )
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    places = [str(recipe), str(candidates), str(scores), str(tmp_path / "pointwise")]
    assert main(["zelo", "train-pointwise", *places]) == 0
    assert "pointwise training: 100%" in terminal.getvalue()
    assert "loss=" in terminal.getvalue()
