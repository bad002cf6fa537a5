"""Each stage alone, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from rerank.__main__ import main

from .small import TINY, lines, tiny_world


@pytest.mark.process
def test_each_stage_alone_leads_to_a_reranker_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    recipe = str(tiny_world(tmp_path, TINY, queries=9))

    def zelo(*arguments: str) -> str:
        code = main(["zelo", *(str(tmp_path / a[1:]) if a[0] == "@" else a for a in arguments)])
        told = capsys.readouterr()
        assert code == 0, told.err
        return told.out

    assert "candidates.jsonl: 6 queries" in zelo("candidates", recipe, "@candidates.jsonl")
    gold = ("@candidates.jsonl", "@gold.jsonl", "--gold", "3", "--bridge-degree", "0")
    assert "gold.jsonl: 6 queries" in zelo("pairs", *gold)
    assert zelo("pairs", *gold).endswith("kept\n")
    told = zelo("judge", recipe, "@candidates.jsonl", "@gold.jsonl", "@answers.jsonl")
    assert re.search(r"qrels \w{8} \(irrelevant\): 18 answers", told)
    asked = ("@candidates.jsonl", "@gold.jsonl", "@answers.jsonl", "@preferences.jsonl")
    assert "preferences.jsonl: 6 queries" in zelo("combine", *asked)
    training = ("@candidates.jsonl", "@preferences.jsonl", "@pairwise")
    assert "pairwise accuracy" in zelo("train-pairwise", recipe, *training)
    assert "kept" in zelo("train-pairwise", recipe, *training)
    zelo("fit", "@candidates.jsonl", "@preferences.jsonl", "@scores.jsonl", "--link", "thurstone")
    targets = [each["target"] for each in lines(tmp_path / "scores.jsonl")[1]["documents"]]
    assert all(0 < each < 1 for each in targets)
    zelo("train-pointwise", recipe, "@candidates.jsonl", "@scores.jsonl", "@pointwise")
    (tmp_path / "market" / "qrels" / "test.tsv").write_text(
        (tmp_path / "market" / "qrels" / "train.tsv").read_text()
    )
    table = zelo(
        "evaluate", "@pointwise/checkpoint", "@market", "@candidates.jsonl", "@evaluation.jsonl"
    )
    assert "market: nDCG@10, 6 queries" in table and "minus before" in table


def test_what_a_stage_alone_cannot_do_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none.jsonl")
    assert main(["zelo", "pairs", missing, str(tmp_path / "pairs.jsonl")]) == 2
    assert "none.jsonl is missing: run the stage that writes it first" in capsys.readouterr().err
    assert main(["zelo", "run", str(tmp_path / "none.toml")]) == 2
    assert "none.toml cannot be read" in capsys.readouterr().err


def test_wrong_arguments_are_one_sentence_and_write_over_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(tiny_world(tmp_path, queries=9))
    candidates, pairs = str(tmp_path / "candidates.jsonl"), str(tmp_path / "pairs.jsonl")
    answers, preferences = str(tmp_path / "answers.jsonl"), str(tmp_path / "preferences.jsonl")
    assert main(["zelo", "candidates", recipe, candidates]) == 0
    assert main(["zelo", "pairs", candidates, pairs]) == 0

    def refused(sentence: str, *arguments: str) -> None:
        capsys.readouterr()
        try:
            assert main(["zelo", *arguments]) == 2
        except SystemExit as ended:
            assert ended.code == 2
        told = capsys.readouterr().err
        assert sentence in told and "Traceback" not in told

    before = Path(candidates).read_bytes()
    refused("it is CANDIDATES: name another OUTPUT", "pairs", candidates, candidates)
    assert Path(candidates).read_bytes() == before
    refused("1 is not at least 2", "pairs", candidates, pairs, "--degree", "1")
    refused("cannot be read: Is a directory", "judge", recipe, candidates, pairs, str(tmp_path))
    assert main(["zelo", "judge", recipe, candidates, pairs, answers]) == 0
    mixed = ("combine", candidates, pairs, answers, preferences)
    refused("holds answers of qrels", *mixed, "--judges", "someone")
    assert main(["zelo", *mixed]) == 0
    fit = ("fit", candidates, preferences, str(tmp_path / "scores.jsonl"))
    refused("1 is not above 0 and below 1", *fit, "--mean-target", "1")
    assert main(["zelo", *fit]) == 0
    training = ("train-pairwise", recipe, candidates, preferences, recipe + ".txt")
    Path(recipe + ".txt").touch()
    refused("is a file: name a directory", *training)
    refused("nan is not above 0", "plan", "--model", "4b", "--gpu-gb", "nan")


def test_combining_finds_the_answers_of_a_recipe_with_another_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(tiny_world(tmp_path, f"seed = 7\n{TINY}", queries=9))
    names = ("candidates", "pairs", "answers", "preferences")
    candidates, pairs, answers, preferences = (str(tmp_path / f"{each}.jsonl") for each in names)
    assert main(["zelo", "candidates", recipe, candidates]) == 0
    assert main(["zelo", "pairs", candidates, pairs]) == 0
    assert main(["zelo", "judge", recipe, candidates, pairs, answers]) == 0
    assert main(["zelo", "combine", candidates, pairs, answers, preferences]) == 0
    assert "no answer" not in capsys.readouterr().out
