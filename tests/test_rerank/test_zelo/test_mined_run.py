"""Files of rows instead of a judged folder: mined, judged, trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rerank.__main__ import main
from rerank.errors import StageFailed
from rerank.evaluation.beir import read_qrels
from rerank.zelo.mined_stage import merged, qrels_beside
from rerank.zelo.mining import Row
from rerank.zelo.recipe import recipe_of
from rerank.zelo.records import read_candidates
from rerank.zelo.run import run
from rerank.zelo.watching import Event

from ..tiny import save_headless
from .small import lines

WORDS = ("river", "violin", "garden", "bread", "engine", "castle", "harbour", "market")
COUNT = 24


def write_rows(path: Path, kind: str) -> Path:
    rows: list[dict[str, Any]] = []
    for number in range(COUNT):
        word = WORDS[number % len(WORDS)]
        rows.append(
            {
                "query": f"the {word} {kind} {number}",
                "positives": [f"{kind.title()} {number} is about a {word}, as people say."],
                "negatives": [f"No {word} was seen at {kind} {number} last year."],
            }
        )
    # The same question twice: the answer of one row is no negative of the other.
    rows.append({"query": f" The river {kind}  0", "positives": [f"A river {kind}, number 0."]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("rows")
    for kind in ("town", "farm"):
        write_rows(folder / f"{kind}.jsonl", kind)
    save_headless(folder / "base")
    return folder


def table(**changes: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "data": {"rows": ["town.jsonl", "farm.jsonl"]},
        "mining": {"near": 2, "near_band": 6, "far": 2, "far_band": 20},
        "judges": [{"kind": "qrels", "unjudged": "irrelevant"}],
        "pairs": {"degree": 4, "bridge_degree": 2},
        "pointwise": {"base": "base", "rate": 1e-3, "held_out": 0.2},
        "second_pass": {"rounds": 1, "worst_rank": 1},
        **changes,
    }


def test_rows_become_a_trained_reranker_and_are_mined_once(world: Path, tmp_path: Path) -> None:
    recipe, directory = recipe_of(table(), world), tmp_path / "run"
    outcome = run(recipe, directory)
    assert outcome.state == "done" and outcome.checkpoint is not None
    candidates = directory / "candidates.jsonl"
    queries, judged = list(read_candidates(candidates)), read_qrels(qrels_beside(candidates))
    # One query in each file was asked twice.
    assert len(queries) == 2 * COUNT == len(judged)
    for query in queries:
        grades = judged[query.query_id]
        assert len(query.documents) == 5 and list(grades.values()).count(1) == 1
        assert set(grades) <= {document.id for document in query.documents}
        priors = [document.prior or 0.0 for document in query.documents]
        assert priors == sorted(priors, reverse=True)
    sentence = "town: 24 of 24 queries find their answer among 49 passages."
    assert sentence in outcome.sentences

    # The judge believes the rows: answers have the highest targets.
    for record in lines(directory / "round-0" / "scores.jsonl")[1:]:
        best = max(record["documents"], key=lambda each: each["target"])
        assert judged[record["query_id"]].get(best["id"]) == 1
    manifest = json.loads((outcome.checkpoint / "manifest.json").read_text())
    assert manifest["notes"]["calibration"]["none"].startswith("The reranker has no calibration")

    events: list[Event] = []
    assert run(recipe, directory, on_event=events.append).state == "done"
    done = {each.stage for each in events if each.state == "done" and not each.kept}
    assert done == {"checkpoint"}
    qrels_beside(candidates).write_text("changed\n")
    assert run(recipe, directory).state == "done"
    assert len(read_qrels(qrels_beside(candidates))) == 2 * COUNT


def test_rows_of_one_query_are_one_and_its_positives_no_negatives() -> None:
    rows = [
        Row("a b", ("x  y",), ("u",)),
        Row("A  b", ("v",), ("x y", "w")),
        Row("c", ("x y",), ()),
    ]
    assert merged(rows) == [Row("a b", ("x  y", "v"), ("u", "w")), rows[2]]


def test_the_stages_alone_mine_and_judge_rows(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = world / "recipe.toml"
    recipe.write_text(
        '[data]\nrows = ["town.jsonl"]\n[[judges]]\nkind = "qrels"\nunjudged = "irrelevant"\n'
    )
    names = ("candidates.jsonl", "pairs.jsonl", "answers.jsonl")
    candidates, pairs, answers = (str(tmp_path / name) for name in names)
    assert main(["zelo", "candidates", str(recipe), candidates]) == 0
    assert main(["zelo", "pairs", candidates, pairs, "--gold", "2", "--bridge-degree", "0"]) == 0
    assert main(["zelo", "judge", str(recipe), candidates, pairs, answers]) == 0
    assert re.search(r"qrels \w{8} \(irrelevant\): 48 answers", capsys.readouterr().out)


def test_rows_in_another_language_are_named_in_one_sentence(world: Path, tmp_path: Path) -> None:
    (world / "fr.jsonl").write_text(
        json.dumps({"query": "une riviere", "positives": ["La riviere."], "lang": "fr"}) + "\n"
    )
    recipe = recipe_of(table(data={"rows": ["fr.jsonl"]}), world)
    with pytest.raises(StageFailed, match=r"Candidates: No query of the rows .* language 'en'"):
        run(recipe, tmp_path / "run")
