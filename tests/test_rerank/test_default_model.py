"""The built-in reranker is made from rows of queries: mining goes on where it was stopped, the same
lists give the same file, and the gate's table reads no document twice for another head."""

from __future__ import annotations

import gzip
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benches import default_lists, default_model, default_training, ship_gate
from benches.stages import Stages
from rerank.errors import BadInput
from rerank.inference.fused_files import untrained
from rerank.inference.fused_head import BUILT_IN_HEAD, built_in_head, read_head

WORDS = ["river", "violin", "garden", "bread", "engine", "castle", "harbour", "market", "winter"]
WORDS += ["copper", "letter", "island", "teacher", "window", "mountain", "pepper"]


def world(folder: Path, names: tuple[str, ...]) -> None:
    """A few rows for each source, whose first-ranked passage is not always the right one."""
    (folder / "train").mkdir(parents=True)
    for name in names:
        chance = random.Random(name)
        rows = []
        for number in range(12):
            words = chance.sample(WORDS, 3)
            positive = f"Part {number} is about the {' and the '.join(chance.sample(words, 2))}."
            rows.append({"query": f"the {' '.join(words)} in {name}", "positives": [positive]})
        with gzip.open(default_lists.file_of(name, folder), "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)


def test_mining_that_was_stopped_goes_on_with_the_next_source(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    names = ("conala", "selqa", "squad")
    world(tmp_path, names)
    whole = default_lists.kept_lists(tmp_path, tmp_path / "whole", names)
    assert {each.query_id.rsplit("-", 1)[0] for each in whole[0]} == set(names)
    assert len(whole[1]) == 3

    second = default_lists.file_of("selqa", tmp_path)
    good = second.read_bytes()
    second.write_bytes(gzip.compress(b"no row\n"))
    timed = Stages(tmp_path / "stages.json")
    with pytest.raises(BadInput, match="not JSON"):
        default_lists.kept_lists(tmp_path, tmp_path / "stopped", names, timed)
    kept = tmp_path / "stopped" / "lists" / "conala.pickle"
    assert [each.name for each in kept.parent.iterdir()] == ["conala.pickle"]
    assert list(json.loads((tmp_path / "stages.json").read_text())) == ["lists of conala"]
    before = kept.stat().st_mtime_ns

    second.write_bytes(good)
    found = default_lists.kept_lists(tmp_path, tmp_path / "stopped", names, timed)
    assert found == whole and kept.stat().st_mtime_ns == before
    assert list(json.loads((tmp_path / "stages.json").read_text())) == [
        f"lists of {name}" for name in names
    ]


def test_the_command_makes_the_same_head_from_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    shipped = BUILT_IN_HEAD.read_bytes()
    world(tmp_path, default_lists.HEAD_SOURCES)
    for name in ("one", "other"):
        directory = str(tmp_path / name)
        command = ["default_model", str(tmp_path), "--directory", directory, "--no-table"]
        monkeypatch.setattr(sys, "argv", command)
        default_model.main()
    said = capsys.readouterr().out
    # Made from other rows than the shipped one, which stays as it is.
    assert "not the shipped model" in said and "| bias |" in said
    assert BUILT_IN_HEAD.read_bytes() == shipped
    one, other = (tmp_path / name / "head.json" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes() and read_head(one) != built_in_head()
    made = json.loads(one.read_text(encoding="utf-8"))["made"]
    assert made.keys() == json.loads(BUILT_IN_HEAD.read_text(encoding="utf-8"))["made"].keys()
    assert made["lists in all"] == 16 and len(made["files sha256"]) == 16


def test_what_is_missing_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["default_model", str(tmp_path), "--directory", str(tmp_path)])
    with pytest.raises(SystemExit):
        default_model.main()
    assert "conala.jsonl.gz" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_head_reads_no_document_of_the_judged_sets_again(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for name in ("books", "places"):
        folder = tmp_path / "eval" / name
        (folder / "qrels").mkdir(parents=True)
        rows = [{"_id": f"d{n}", "title": "", "text": f"All of {w}."} for n, w in enumerate(WORDS)]
        with gzip.open(folder / "corpus.jsonl.gz", "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
        with gzip.open(folder / "queries.jsonl.gz", "wt") as out:
            out.writelines(
                json.dumps({"_id": f"q{n}", "text": f"{w} of {name}"}) + "\n"
                for n, w in enumerate(WORDS)
            )
        lines = [f"q{n}\td{n}\t1" for n in range(len(WORDS))]
        text = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
        (folder / "qrels" / "test.tsv").write_text(text)

    def measured(match: float) -> ship_gate.Report:
        files = replace(untrained(), head=replace(built_in_head(), match=match))
        return ship_gate.table(
            tmp_path / "eval",
            {ship_gate.STEP_0: files},
            "dev",
            tmp_path / "out",
            tmp_path / "cache",
        )

    good = measured(built_in_head().match)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("*.npz")}
    assert len(kept) == 2
    bad = measured(-200.0)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").glob("*.npz")} == kept
    means = [each.parts["nDCG@10"][-1][ship_gate.STEP_0] for each in (good, bad)]
    assert means[0] > means[1]
    assert not ship_gate.holds(bad, ship_gate.STEP_0)
    assert "does not pass the gate" in default_model.verdict(ship_gate.STEP_0, [bad])


def test_the_challenger_starts_from_the_fitted_head_and_is_mixed_half_way(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    world(tmp_path, ("conala", "selqa"))
    training, held_out = default_lists.kept_lists(tmp_path, tmp_path, ("conala", "selqa"))
    head = replace(built_in_head(), prior=3.0, match=12.0)
    start = default_training.step_0(head)
    plan = default_training.Training(
        seed=1, lists=20, changed={"max_steps": "2", "validate_every": "2", "keep_best": ""}
    )
    assert plan.name == "seed-1-keep_best--max_steps-2-validate_every-2-lists-20"
    done = default_training.train_challenger(start, training, held_out, plan, tmp_path / plan.name)
    again = default_training.train_challenger(start, training, held_out, plan, tmp_path / plan.name)
    assert done.steps == 2 and again == done
    checkpoint, mixed = tmp_path / plan.name / "checkpoint", tmp_path / "mixed"
    trained = default_training.trained_files("trained", checkpoint)
    # Two steps move the weights by little, from where they began.
    assert trained.head != head and trained.head.match == pytest.approx(12.0, rel=0.05)
    default_training.halfway(start, checkpoint, mixed, 0.5)
    between = default_training.trained_files("mixed", mixed).head
    assert between.match == pytest.approx((12.0 + trained.head.match) / 2)
    settled = default_training.settle_head(mixed, held_out)
    assert default_training.trained_files("mixed", mixed).head == settled
    assert settled.match == pytest.approx(between.match, abs=1e-4)
    assert settled.bias != pytest.approx(between.bias, abs=1e-3)

    # Matches depend on neither head nor manifest.
    cpu = torch.float32
    was = trained.encoder_revision(cpu)
    default_training.settle_head(checkpoint, held_out)
    assert default_training.trained_files("trained", checkpoint).encoder_revision(cpu) == was
    assert was != start.encoder_revision(cpu) == untrained().encoder_revision(cpu)
    assert start.revision(cpu) != untrained().revision(cpu)
