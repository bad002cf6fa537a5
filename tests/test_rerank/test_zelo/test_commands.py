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
