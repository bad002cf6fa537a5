"""Runs that cannot go on, and runs on strange data: a sentence with the stage's name, or a note."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from rerank.__main__ import main
from rerank.errors import StageFailed
from rerank.zelo.recipe import Recipe, recipe_of
from rerank.zelo.records import Candidates, Document, write_candidates
from rerank.zelo.run import run

from ..http_servers import Asked, serving

Answerer = Callable[[Asked, BaseHTTPRequestHandler], Any]


def saying(text: str) -> Answerer:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        return 200, {
            "choices": [{"message": {"content": text}}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
        }

    return answer


def written(folder: Path, queries: int = 6, documents: int = 8, texts: str = "text {0}") -> Path:
    path = folder / "candidates.jsonl"
    write_candidates(
        path,
        [
            Candidates(
                f"q{q}",
                f"query {q}",
                tuple(Document(f"d{d}", texts.format(f"{q} {d}")) for d in range(documents)),
            )
            for q in range(queries)
        ],
    )
    return path


def judged_by(folder: Path, *judges: dict[str, Any], **tables: Any) -> Recipe:
    table = {"data": {"candidates": "candidates.jsonl"}, "judges": list(judges), **tables}
    return recipe_of(table, folder)


def chat(url: str, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "openai",
        "model": "judge",
        "url": url,
        "input_price": 0,
        "output_price": 0,
        "max_retries": 0,
        **changes,
    }


def test_a_judge_that_talks_nonsense_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    written(tmp_path)
    with serving(saying("Both are lovely.")) as server:
        recipe = judged_by(tmp_path, chat(server.url))
        with pytest.raises(StageFailed, match=r"^Judging: No judge is left.*gave no score") as told:
            run(recipe, tmp_path / "run")
    assert "\n" not in str(told.value)


def test_a_judge_that_never_answers_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    written(tmp_path, queries=3)
    with serving(lambda asked, handler: handler.server.shutdown_request(handler.request)) as server:
        recipe = judged_by(tmp_path, chat(server.url, timeout_seconds=0.5, parallel=64))
        with pytest.raises(StageFailed, match=r"^Judging: No judge is left.*calls failed"):
            run(recipe, tmp_path / "run")


def test_a_judge_that_always_says_a_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    written(tmp_path)
    with serving(saying("<score>-1.00</score>")) as server:
        recipe = judged_by(tmp_path, chat(server.url))
        with pytest.raises(StageFailed, match=r"^Judging: No judge is left.*shown first"):
            run(recipe, tmp_path / "run")


def test_a_judge_set_aside_leaves_the_run_to_the_others(tmp_path: Path) -> None:
    written(tmp_path)
    qrels = "".join(f"q{q}\td{d}\t{d}\n" for q in range(6) for d in range(8))
    (tmp_path / "qrels.tsv").write_text(qrels)
    with serving(saying("<score>-1.00</score>")) as server:
        recipe = judged_by(tmp_path, chat(server.url), {"kind": "qrels", "file": "qrels.tsv"})
        outcome = run(recipe, tmp_path / "run")
    assert outcome.state == "done"
    assert any("set aside" in sentence for sentence in outcome.sentences)
    assert any("is left out" in sentence for sentence in outcome.sentences)


def test_judges_that_cost_money_are_asked_only_with_a_yes_or_a_budget(tmp_path: Path) -> None:
    written(tmp_path, queries=2, documents=3)
    with serving(saying("<score>0.50</score>")) as server:
        dear = chat(server.url, input_price=1000.0, output_price=1000.0)
        waiting = run(judged_by(tmp_path, dear), tmp_path / "run")
        assert waiting.state == "unapproved" and not server.asked
        assert "Judging would cost about" in waiting.sentences[0]

        unpriced = {k: v for k, v in dear.items() if not k.endswith("price")}
        unknown = run(judged_by(tmp_path, unpriced), tmp_path / "run")
        assert unknown.state == "unapproved" and not server.asked
        assert unknown.sentences[0].startswith("No price is known of openai judge")
        # Nobody can count what it costs, so no budget holds it.
        held = run(judged_by(tmp_path, unpriced, judging={"budget": 9.0}), tmp_path / "run")
        assert held.state == "unapproved" and not server.asked

        tight = judged_by(tmp_path, dear, judging={"budget": 0.01})
        with pytest.raises(StageFailed, match=r"^Judging: .*more than the 0.01 allowed.*Nothing"):
            run(tight, tmp_path / "run")
        assert not server.asked

        roomy = judged_by(tmp_path, dear, judging={"budget": 100.0})
        outcome = run(roomy, tmp_path / "run")
        assert outcome.state == "done" and outcome.cost > 1.0
        assert len(server.asked) == 7
        # What was answered is kept, and costs nothing any more.
        assert run(judged_by(tmp_path, dear), tmp_path / "run").state == "done"
        assert len(server.asked) == 7
        # Its price is: a budget holds for all starts together.
        more = judged_by(tmp_path, dear, judging={"budget": outcome.cost}, seed=1)
        with pytest.raises(StageFailed, match=r"beside the \d+\.\d\d spent before, more than"):
            run(more, tmp_path / "run")
        assert len(server.asked) == 7


def test_the_command_shows_the_price_and_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, queries=2, documents=3)
    with serving(saying("<score>0.50</score>")) as server:
        (tmp_path / "recipe.toml").write_text(
            '[data]\ncandidates = "candidates.jsonl"\n[[judges]]\nkind = "openai"\n'
            f'model = "judge"\nurl = "{server.url}"\ninput_price = 9\noutput_price = 9\n'
        )
        command = ["zelo", "run", str(tmp_path / "recipe.toml")]
        assert main(command) == 1
        told = capsys.readouterr().out
        assert "Judging would cost about 0.0" in told and "about 0.00 " not in told
        assert told.count("budget") == 1
        assert not server.asked
        assert main([*command, "--yes"]) == 0
        assert len(server.asked) == 7
        assert (tmp_path / "recipe" / "round-0" / "scores.jsonl").exists()


def test_judgments_of_other_queries_end_the_run_with_a_sentence(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "qrels.tsv").write_text("other\td0\t1\n")
    recipe = judged_by(tmp_path, {"kind": "qrels", "file": "qrels.tsv"})
    with pytest.raises(StageFailed, match=r"^Judging: No judge gave a .*Do the ids of the judg"):
        run(recipe, tmp_path / "run")
    other = {"kind": "qrels", "file": "qrels.tsv", "unjudged": "irrelevant"}
    outcome = run(judged_by(tmp_path, other), tmp_path / "run")
    assert any(each.startswith("Every answer is a tie") for each in outcome.sentences)


@pytest.mark.parametrize(
    ("pointwise", "device", "sentence"),
    [
        ({"dtype": "float99"}, "cpu", "no number format called 'float99'"),
        ({"dtype": "bfloat16"}, "cpu", "Full training needs float32"),
        ({"base": "base"}, "cpu", "holds no model"),
        ({}, "cudo", "no kind of device called 'cudo'"),
    ],
)
def test_no_judge_is_paid_for_a_training_that_cannot_begin(
    tmp_path: Path, pointwise: dict[str, Any], device: str, sentence: str
) -> None:
    written(tmp_path, queries=2, documents=3)
    (tmp_path / "base").mkdir()
    with serving(saying("<score>0.50</score>")) as server:
        judge = chat(server.url, input_price=9.0, output_price=9.0)
        recipe = judged_by(
            tmp_path, judge, judging={"budget": 9.0}, pointwise=pointwise, device=device
        )
        with pytest.raises(StageFailed, match=rf"^Pointwise training: .*{sentence}.*Nothing was"):
            run(recipe, tmp_path / "run")
        assert not server.asked


def test_no_judge_is_paid_where_no_query_can_be_held_out(tmp_path: Path) -> None:
    written(tmp_path, queries=1, documents=3)
    with serving(saying("<score>0.50</score>")) as server:
        judge = chat(server.url, input_price=9.0, output_price=9.0)
        tables: dict[str, Any] = {"judging": {"budget": 9.0}, "fit": {"offsets": False}}
        alone = judged_by(tmp_path, judge, pointwise={}, **tables)
        with pytest.raises(StageFailed, match=r"one query only.*Nothing was asked"):
            run(alone, tmp_path / "run")
        assert not server.asked


def test_copies_and_unconnected_documents_are_said_and_do_not_stop_the_run(tmp_path: Path) -> None:
    written(tmp_path, queries=2, documents=6)
    (tmp_path / "people.jsonl").write_text(
        json.dumps({"query_id": "q0", "a": "d0", "b": "d1", "preference": "a"}) + "\n"
    )
    recipe = judged_by(tmp_path, {"kind": "people", "file": "people.jsonl"})
    outcome = run(recipe, tmp_path / "run")
    assert any("leave documents unconnected" in each for each in outcome.sentences)
    assert any("have no answer and are left out" in each for each in outcome.sentences)

    copies = tmp_path / "copies"
    copies.mkdir()
    written(copies, texts="the same text")
    (copies / "qrels.tsv").write_text("q0\td0\t1\n")
    recipe = judged_by(
        copies,
        {"kind": "qrels", "file": "qrels.tsv", "unjudged": "irrelevant"},
        fit={"offsets": False},
    )
    # One document a query is left, and nothing to compare.
    assert run(recipe, copies / "run").state == "done"


def test_broken_candidates_are_named_by_line(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / "candidates.jsonl").open("a") as file:
        file.write('{"query_id": "q9"}\n')
    (tmp_path / "qrels.tsv").write_text("q0\td0\t1\n")
    recipe = judged_by(tmp_path, {"kind": "qrels", "file": "qrels.tsv"})
    with pytest.raises(StageFailed, match=r"^Pairs: Line 7 of .*candidates.jsonl is no query"):
        run(recipe, tmp_path / "run")
