"""Files as editors, exports and people leave them: read as meant, or named in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rerank.errors import BadInput, BadRecipe, BadStage, StageFailed
from rerank.evaluation.evaluate import Settings
from rerank.zelo.candidates import make_candidates
from rerank.zelo.mining import read_rows
from rerank.zelo.recipe import read_recipe, recipe_of
from rerank.zelo.records import Candidates, Document, read_candidates, write_candidates
from rerank.zelo.run import run

from .small import lines

MARK = "\ufeff"
HALF = "\\ud83d"


def candidates_in(folder: Path) -> Path:
    path = folder / "candidates.jsonl"
    documents = tuple(Document(f"d{at}", f"text {at}") for at in range(6))
    write_candidates(path, [Candidates(f"q{q}", f"query {q}", documents) for q in range(4)])
    return path


def table(**judge: Any) -> dict[str, Any]:
    return {"data": {"candidates": "candidates.jsonl"}, "judges": [judge]}


def preferences(folder: Path) -> dict[tuple[str, str, str], float]:
    """(query, a, b) -> P(a is better)"""
    found = {}
    for line in lines(folder / "round-0" / "preferences.jsonl")[1:]:
        for each in line["preferences"]:
            found[line["query_id"], each["a"], each["b"]] = each["preference"]
    return found


def test_a_mark_before_the_first_letter_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = candidates_in(tmp_path)
    path.write_text(MARK + path.read_text(), encoding="utf-8")
    people = {"query_id": "q0", "a": "d0", "b": "d1", "preference": "a"}
    (tmp_path / "people.jsonl").write_text(MARK + json.dumps(people) + "\r\n", encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(
        f'{MARK}[data]\ncandidates = "candidates.jsonl"\n'
        '[[judges]]\nkind = "people"\nfile = "people.jsonl"\n',
        encoding="utf-8",
    )
    assert run(read_recipe(tmp_path / "recipe.toml"), tmp_path / "run").state == "done"


def test_a_recipe_in_another_encoding_says_so(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes('name = "Bücher"'.encode("latin-1"))
    with pytest.raises(BadRecipe, match=r"^The recipe recipe.toml is not UTF-8 text. Save it as"):
        read_recipe(tmp_path / "recipe.toml")


def test_half_a_character_does_not_cost_the_run(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        f'{{"_id": "d0", "text": "a lamp {HALF}"}}\n{{"_id": "d1", "text": "a lamp and a chair"}}\n'
    )
    (tmp_path / "queries.jsonl").write_text(f'{{"_id": "q0", "text": "lamp {HALF}"}}\n')
    output = tmp_path / "candidates.jsonl"

    def nobody(name: str) -> Any:
        raise AssertionError(name)

    make_candidates(tmp_path, output, Settings("bm25", 10), load_embedder=nobody)
    (query,) = read_candidates(output)
    assert {each.text for each in query.documents} == {"a lamp ?", "a lamp and a chair"}

    given = f'{{"query_id": "{HALF}", "query": "{HALF}", "documents": []}}\n'
    (tmp_path / "given.jsonl").write_text(given)
    (query,) = read_candidates(tmp_path / "given.jsonl")
    write_candidates(tmp_path / "copy.jsonl", [query])
    assert list(read_candidates(tmp_path / "copy.jsonl")) == [query]
    assert query.query == "?"


def test_a_line_of_nothing_but_brackets_is_named(tmp_path: Path) -> None:
    (tmp_path / "candidates.jsonl").write_text("[" * 100_000)
    with pytest.raises(BadStage, match=r"^Line 1 of .* is not JSON"):
        list(read_candidates(tmp_path / "candidates.jsonl"))


@pytest.mark.parametrize("value", ['"one answer"', "5", "{}", "[]", "[1]", "null"])
def test_positives_that_are_no_list_of_texts_are_named_by_line(tmp_path: Path, value: str) -> None:
    good = '{"query": "q", "positives": ["p"], "negatives": null}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{good}{{"query": "q", "positives": {value}}}\n')
    with pytest.raises(BadInput, match=r"^Line 2 of rows.jsonl should hold a query, a list of"):
        read_rows(path)
    path.write_text(f'{{"query": "q {HALF}", "positives": ["p {HALF}"]}}\n')
    assert read_rows(path)[0].positives == ("p ?",)


def test_changed_judgments_are_asked_again(tmp_path: Path) -> None:
    candidates_in(tmp_path)
    qrels, people = tmp_path / "qrels.tsv", tmp_path / "people.jsonl"
    qrels.touch()
    people.touch()
    recipes = [
        recipe_of(table(kind="qrels", file="qrels.tsv"), tmp_path),
        recipe_of(table(kind="people", file="people.jsonl"), tmp_path),
    ]

    def judge(sign: int) -> list[dict[tuple[str, str, str], float]]:
        """Of each recipe, with grades that rise or fall with the document's number."""
        graded = [(f"q{q}", at) for q in range(4) for at in range(6)]
        qrels.write_text("".join(f"{q}\td{at}\t{6 + sign * at}\n" for q, at in graded))
        said = [
            {"query_id": q, "a": f"d{at}", "b": f"d{b}", "preference": "b" if sign > 0 else "a"}
            for q, at in graded
            for b in range(at + 1, 6)
        ]
        people.write_text("".join(json.dumps(each) + "\n" for each in said))
        found = []
        for at, recipe in enumerate(recipes):
            assert run(recipe, tmp_path / f"run-{at}").state == "done"
            found.append(preferences(tmp_path / f"run-{at}"))
        return found

    for rising, falling in zip(judge(1), judge(-1), strict=True):
        assert rising and all(abs(rising[pair] - falling[pair]) > 0.8 for pair in rising)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pointwise": {"seeds": [[0]]}}, "seeds must be a list of one or more different whole"),
        ({"pointwise": {"metod": "lora"}}, r"\[pointwise\]: the key metod .*did you mean method\?"),
        ({"pointwise": {"max_tokens": 4}}, "max_tokens must be 0, or a whole number from 32 to"),
        ({"pointwise": {"epoch": 2}}, "the key epoch is unknown; did you mean epochs"),
        (table(kind="openai", model="m", url="localhost:8000"), "url must be an address that beg"),
        (table(kind="openai", model="m", url="http://[::1"), "url must be an address that begins"),
        (table(kind="qrels"), r"\[data\] names no judgments either: set qrels there"),
        (table(kind="qrels", file="."), "judge 1: file names .*, which is no file"),
        (table(kind="model", directory="candidates.jsonl"), "directory names .*is no directory"),
        ({"data": {"candidates": "."}}, r"\[data\]: candidates names .*, which is no file"),
        ({"data": {"folder": "candidates.jsonl"}}, "folder names .*, which is no folder"),
        ({"data": {"rows": ["."]}}, "rows names .*, which is no file"),
    ],
)
def test_a_recipe_that_names_the_wrong_thing_is_told_so_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    candidates_in(tmp_path)
    (tmp_path / "qrels.tsv").touch()
    whole = {**table(kind="qrels", file="qrels.tsv"), **changes}
    with pytest.raises(BadRecipe, match=sentence) as told:
        recipe_of(whole, tmp_path)
    assert "\n" not in str(told.value)


def test_two_judges_of_one_name_are_told_which(tmp_path: Path) -> None:
    candidates_in(tmp_path)
    (tmp_path / "qrels.tsv").write_text("q0\td0\t1\n")
    twice = {**table(), "judges": [{"kind": "qrels", "file": "qrels.tsv"}] * 2}
    with pytest.raises(StageFailed, match=r"same name, qrels \w{8} \(abstain\), .*set another"):
        run(recipe_of(twice, tmp_path), tmp_path / "run")
