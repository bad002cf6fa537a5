"""What the built-in reranker learns by which loss, from which targets, in which layers.

    python -m benches.losses ../shared/datasets --directory var/default-model

Short trainings on the lists of benches.default_lists, several seeds each, measured on held-out
queries: BCE, listwise softmax and squared error on labels, squared error on zELO targets; the
head alone, the upper half of the encoder, and all of it with the embeddings. Started again it goes
on behind the rows that are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.default_lists import SOURCES, kept_lists
from benches.default_training import SETTINGS
from benches.report import Report, Row
from rerank.inference.devices import choose_device
from rerank.inference.fused_files import untrained
from rerank.training.examples import TrainingList
from rerank.training.fused_maxsim_base import FusedMaxSimBase
from rerank.training.loop import train
from rerank.zelo.links import THURSTONE
from rerank.zelo.offsets import targets
from rerank.zelo.scoring import Preferences, fit_scores

TOKENS = 64
DOCUMENTS = 4
# How sharply the first stage, as a judge, prefers the document with the better score.
SHARPNESS = 4.0
LAYERS = {"head alone": 6, "upper half": 3, "all": -1}
RUNS = [
    ("listwise", "labels", "head alone"),
    ("listwise", "labels", "upper half"),
    ("bce", "labels", "upper half"),
    ("mse", "labels", "upper half"),
    ("mse", "zELO", "upper half"),
    ("listwise", "labels", "all"),
]


NAMES = ("loss", "targets", "trained")
PART = "nDCG@10 above step 0"


def kept_parts(file: Path) -> dict[str, list[Row]]:
    """The rows of a run that was stopped; delete the file to measure them again."""
    if not file.is_file():
        return {}
    parts = json.loads(file.read_text(encoding="utf-8"))
    return {PART: parts.get(PART, [])}


def shortened(each: TrainingList, seed: int) -> TrainingList:
    """The relevant document and a few others."""
    good = [place for place, target in enumerate(each.targets) if target > 0]
    rest = [place for place in range(len(each.targets)) if place not in good[:1]]
    chance = random.Random(f"{seed} {each.query_id}")
    kept = sorted([*good[:1], *chance.sample(rest, min(DOCUMENTS - 1, len(rest)))])
    return replace(
        each,
        documents=tuple(each.documents[place] for place in kept),
        targets=tuple(each.targets[place] for place in kept),
        priors=None if each.priors is None else tuple(each.priors[place] for place in kept),
    )


def with_zelo_targets(lists: Sequence[TrainingList]) -> list[TrainingList]:
    """Targets fitted to what two judges prefer: the labels, and softly the first stage."""
    fits = fit_scores([_preferences(each) for each in lists])
    mean = float(np.mean([target for each in lists for target in each.targets]))
    aims = targets([fit.scores for fit in fits], np.zeros(len(fits)), mean=mean, link=THURSTONE)
    return [
        replace(each, targets=tuple(float(value) for value in aim))
        for each, aim in zip(lists, aims, strict=True)
    ]


def _preferences(each: TrainingList) -> Preferences:
    pairs = list(itertools.combinations(range(len(each.documents)), 2))
    by_label = [0.5 + (each.targets[a] - each.targets[b]) / 2 for a, b in pairs]
    priors = each.priors or [0.0] * len(each.documents)
    by_rank = [1 / (1 + np.exp(-SHARPNESS * (priors[a] - priors[b]))) for a, b in pairs]
    values = (np.array(by_label) + np.array(by_rank)) / 2
    return Preferences(len(each.documents), np.array(pairs).reshape(-1, 2), values)


def measured(
    lists: Sequence[TrainingList],
    held_out: Sequence[TrainingList],
    run: tuple[str, str, str],
    seed: int,
    steps: int,
    directory: Path,
) -> tuple[float, float]:
    """nDCG@10 on the held-out queries before and after."""
    loss, kind, layers = run
    learned = with_zelo_targets(lists) if kind == "zELO" else list(lists)
    base = FusedMaxSimBase(untrained(), choose_device(), TOKENS, LAYERS[layers])
    shutil.rmtree(directory, ignore_errors=True)
    values: dict[str, Any] = {**vars(SETTINGS), "loss": loss, "max_steps": steps, "seed": seed}
    values |= {"validate_every": steps, "keep_best": False}
    found: list[float] = []
    train(
        base,
        learned,
        type(SETTINGS)(**values),
        directory=directory,
        held_out=held_out,
        on_event=lambda event: (
            found.append(event["metrics"]["nDCG@10"]) if event["event"] == "validation" else None
        ),
    )
    shutil.rmtree(directory, ignore_errors=True)
    return found[0], found[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train/")
    parser.add_argument("--directory", type=Path, default=Path("var/default-model"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    training, held_out = kept_lists(options.folder, options.directory, tuple(SOURCES))
    labelled = [each for each in training if each.priors is not None]
    report = Report(
        options.out,
        "losses",
        "Losses, targets and layers of the built-in reranker",
        f"nDCG@10 on {len(held_out)} held-out queries, {TOKENS} tokens of each text; "
        f"{options.steps} steps of {SETTINGS.batch} lists of {DOCUMENTS} documents. Command: "
        "`python -m benches.losses FOLDER`.",
        {"threads": torch.get_num_threads(), "torch": torch.__version__},
    )
    report.parts |= kept_parts(options.out / "losses.json")
    done = {tuple(row[each] for each in NAMES) for row in report.parts.get(PART, [])}
    for run in RUNS:
        if run in done:
            continue
        gains = []
        for seed in range(options.seeds):
            count = options.steps * SETTINGS.batch
            chosen = random.Random(seed).sample(labelled, min(count, len(labelled)))
            lists = [shortened(each, seed) for each in chosen]
            before, after = measured(
                lists, held_out, run, seed, options.steps, options.directory / "losses"
            )
            gains.append(after - before)
            sys.stderr.write(f"{run} seed {seed}: {before:.4f} -> {after:.4f}\n")
        report.add(
            PART,
            {
                **dict(zip(NAMES, run, strict=True)),
                "step 0": round(before, 4),
                "mean gain": round(float(np.mean(gains)), 4),
                "spread over seeds": round(
                    float(np.std(gains, ddof=1)) if len(gains) > 1 else 0, 4
                ),
                "seeds": " ".join(f"{gain:+.4f}" for gain in gains),
            },
        )
        report.write()


if __name__ == "__main__":
    main()
