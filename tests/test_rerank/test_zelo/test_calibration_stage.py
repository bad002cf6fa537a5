"""A trained reranker brings a map of its scores to probabilities, or says why it has none."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from rerank.__main__ import main
from rerank.inference.models import UNTRAINED
from rerank.ranking.calibration_file import FILE_NAME, load_model_calibration
from rerank.training.checkpoint import read_manifest
from rerank.training.settings import Settings
from rerank.zelo.calibration_stage import (
    Serve,
    calibration_notes,
    fit_calibration,
    read_calibration,
)
from rerank.zelo.checkpoint_stage import keep_checkpoint
from rerank.zelo.model_scores import serving
from rerank.zelo.recipe import Training
from rerank.zelo.records import Candidates, Document, Header, write_candidates, write_stage
from rerank.zelo.training_stage import Trained, train_pointwise

THINGS = ("lamp", "chair", "kettle", "clock", "mirror", "basket", "ladder", "tray", "drum", "vase")
QUERIES = 104


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """Queries with candidates, targets and judgments, half of them held out of a training."""
    torch.set_num_threads(1)
    folder, chance = tmp_path_factory.mktemp("market"), random.Random(5)
    queries, targets, judged = [], [], []
    for number in range(QUERIES):
        wanted = THINGS[number % len(THINGS)]
        others = chance.sample([thing for thing in THINGS if thing != wanted], 3)
        documents, known = [], []
        for place, thing in enumerate([wanted, *others]):
            name = f"d{number}-{place}"
            # What people say follows the words most of the time.
            relevant = (thing == wanted) != (chance.random() < 0.15)
            text = f"A {thing} in room {number}, shelf {chance.randint(2, 90)}."
            documents.append(Document(name, text, round(chance.random(), 3)))
            known.append({"id": name, "target": 0.9 if relevant else 0.2})
            judged.append(f"q{number}\t{name}\t{int(relevant)}")
        queries.append(Candidates(f"q{number}", f"{wanted} of room {number}", tuple(documents)))
        targets.append({"query_id": f"q{number}", "documents": known})
    write_candidates(folder / "candidates.jsonl", queries)
    write_stage(folder / "scores.jsonl", Header("scores"), targets)
    (folder / "qrels.tsv").write_text("\n".join(judged) + "\n")
    settings = Settings(loss="listwise", held_out=0.5, max_steps=1, batch=4)
    trained = train_pointwise(
        folder / "candidates.jsonl",
        folder / "scores.jsonl",
        folder / "pointwise-0",
        Training(base=UNTRAINED, settings=settings),
        device="cpu",
    )
    return folder, trained


def test_the_map_is_fitted_on_held_out_judgments_and_lies_in_the_checkpoint(
    market: tuple[Path, Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, trained = market
    assert trained.checkpoint is not None
    files = (folder / "candidates.jsonl", folder / "scores.jsonl", trained.checkpoint)
    output = folder / "round-0" / "calibration.jsonl"
    opened: list[int] = []

    def serve() -> Serve:
        opened.append(1)
        return serving(str(trained.checkpoint), "cpu")

    fitted = fit_calibration(*files, output, serve, qrels=folder / "qrels.tsv")
    assert fitted.records == QUERIES / 2 and "208 judged pairs of 52" in fitted.sentences[0]
    again = fit_calibration(*files, output, serve, qrels=folder / "qrels.tsv")
    assert again.was_current and again.sentences == fitted.sentences and opened == [1]

    notes = calibration_notes(output)
    assert notes["labels"] == "judgments" and (notes["queries"], notes["pairs"]) == (52, 208)
    assert notes["after"]["log_loss"] < notes["before"]["log_loss"]

    keep_checkpoint(
        folder, folder / "checkpoint", folder / "candidates.jsonl", [trained], output, {}
    )
    kept = load_model_calibration(folder / "checkpoint")
    assert kept == read_calibration(output) and kept is not None and kept.note == again.sentences[0]
    manifest = read_manifest(folder / "checkpoint")
    assert manifest.notes["calibration"] == notes
    assert "round-0/calibration.jsonl" in manifest.data

    texts = ["A lamp.", "A drum."]
    assert main(["rank", "lamp", *texts, "--model", str(folder / "checkpoint"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["calibration"] == kept.note
    for each in report["results"]:
        expected = kept.calibration.apply([each["logit"]], [each["relevance"]])
        assert each["calibrated"] == pytest.approx(float(expected[0]))
    assert main(["rank", "lamp", *texts, "--model", str(folder / "checkpoint")]) == 0
    assert "calibrated" in capsys.readouterr().out.splitlines()[0]


def test_without_judgments_the_command_fits_to_the_targets_and_says_so(
    market: tuple[Path, Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, trained = market
    files = ("candidates.jsonl", "scores.jsonl", "pointwise-0/checkpoint", "targets.jsonl")
    paths = [str(folder / each) for each in files]
    assert main(["zelo", "calibrate", *paths, "--device", "cpu"]) == 0
    assert "208 pairs and their targets of 52 held-out queries" in capsys.readouterr().out
    assert trained.checkpoint is not None
    beside = trained.checkpoint / FILE_NAME
    found = load_model_calibration(trained.checkpoint)
    beside.unlink()
    assert found is not None and found.report["labels"] == "targets"


def test_too_few_or_other_queries_give_no_map_and_a_sentence(
    market: tuple[Path, Trained], tmp_path: Path
) -> None:
    folder, trained = market
    assert trained.checkpoint is not None
    lines = (folder / "qrels.tsv").read_text().splitlines()
    few = tmp_path / "few.tsv"
    few.write_text("\n".join(line for line in lines if line.startswith("q1")) + "\n")
    candidates, scores = folder / "candidates.jsonl", folder / "scores.jsonl"

    def never() -> Serve:
        raise AssertionError("nothing to score")

    output = tmp_path / "calibration.jsonl"
    fit_calibration(candidates, scores, trained.checkpoint, output, never, qrels=few)
    assert read_calibration(output) is None
    assert "50 are needed" in calibration_notes(output)["none"]

    fewer = tmp_path / "candidates.jsonl"
    fewer.write_text("".join(candidates.read_text().splitlines(keepends=True)[:60]))
    told = fit_calibration(fewer, scores, trained.checkpoint, output, never)
    assert "trained on other candidates" in told.sentences[0]
