"""Trains the built-in reranker from rows of queries and passages, and measures it.

    python -m benches.default_model ../shared/datasets --directory var/default-model

Mines lists with hard negatives from FOLDER/train, adds queries with instructions, trains, and ends
with the tables of benches.ship_gate on FOLDER/eval. Started again it goes on where it was. With
--head it only fits the numbers of the untrained model again.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benches.default_head import (
    balanced_shift,
    fitted_head,
    guess,
    likeliest,
    matched,
    report,
    source_of,
    usable,
)
from rerank.errors import WrongModel
from rerank.inference.devices import choose_device, choose_dtype
from rerank.inference.fused_files import (
    CONFIG,
    IMPORTANCE,
    Head,
    fused_files,
    load_encoder,
    untrained,
    write_fused,
)
from rerank.inference.fused_maxsim import FusedMaxSim
from rerank.training.bases import open_base, score_rows
from rerank.training.checkpoint import MANIFEST
from rerank.training.examples import TrainingList
from rerank.training.loop import train
from rerank.training.settings import Settings, settings_from
from rerank.types import FloatArray
from rerank.zelo.instructions import wrapped
from rerank.zelo.instructions.generate import Plan, training_lists
from rerank.zelo.mining import Mined, Mining, corpus_of, mine, read_rows

# Name -> (file, language). Names seed the draws.
SOURCES = {
    "business": ("docs-business-en", "en"),
    "conala": ("conala", "en"),
    "cosqa-dev": ("cosqa-dev", "en"),
    "gov": ("docs-policy-gov", "en"),
    "ja": ("jaquad-ja", "ja"),
    "medquad": ("medquad", "en"),
    "money": ("docs-money-multi", "en"),
    "nl": ("docs-business-nl-pl-tr", "nl"),
    "nl2bash": ("nl2bash", "en"),
    "nq-oracle": ("nq-open-oracle", "en"),
    "nq-qed": ("nq-qed", "en"),
    "oss": ("docs-oss-multi", "en"),
    "pubmedqa": ("pubmedqa", "en"),
    "selqa": ("selqa", "en"),
    "squad": ("squad-sample", "en"),
    "squadshifts": ("squadshifts", "en"),
    "tech": ("docs-tech-en", "en"),
    "textbooks": ("docs-textbooks-en", "en"),
    "zh": ("drcd-test-zh", "zh"),
}
INSTRUCTED = ("docs-tech-en", "docs-oss-multi", "docs-policy-gov")
CONTRASTS = 800
# Lists of a source that is not English: enough to see that matches mean little there.
FOREIGN_LISTS = 300
# What the model reads of a text while it learns, and what the first stage reads for the mining.
TOKENS = 128
# One in so many of the held-out lists is validated on.
VALIDATED = 4
# Of the trained weights in what is shipped.
SHARE = 0.5
SETTINGS = Settings(
    loss="listwise",
    epochs=20,
    max_steps=650,
    batch=16,
    micro_batch_tokens=20_000,
    rate=5e-5,
    head_rate=5e-3,
    warmup=0.05,
    autocast=True,
    validate_every=217,
)


def mean_vectors(texts: Sequence[str], reader: FusedMaxSim) -> FloatArray:
    """The untrained encoder as an embedder: unit vectors of its tokens' mean, (n, hidden)."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: list[FloatArray] = [np.zeros(0, dtype=np.float32)] * len(texts)
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        for place, mean in zip(places, reader.means([texts[p] for p in places]), strict=True):
            found[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return np.stack(found)


def untrained_reader() -> FusedMaxSim:
    device = choose_device()
    return FusedMaxSim(
        replace(untrained(), max_document_tokens=TOKENS), device, choose_dtype(device)
    )


def mined_source(name: str, folder: Path, reader: FusedMaxSim) -> Mined:
    """Of one of SOURCES."""
    file, language = SOURCES[name]
    is_english = language == "en"
    mining = Mining(
        passages=4000 if is_english else 1500,
        dense_weight=0.7 if is_english else 0.3,
        language=language,
        held_every=40 if is_english else 0,
    )
    rows = read_rows(folder / f"{file}.jsonl.gz", language if file.startswith("docs-") else "")
    mined = mine(
        corpus_of(rows, mining, name), lambda texts: mean_vectors(texts, reader), mining, name
    )
    return mined if is_english else replace(mined, training=mined.training[:FOREIGN_LISTS])


def mined_lists(folder: Path) -> tuple[list[TrainingList], list[TrainingList]]:
    """(training, held out)."""
    reader = untrained_reader()
    training: list[TrainingList] = []
    held_out: list[TrainingList] = []
    for name in SOURCES:
        started = time.perf_counter()
        mined = mined_source(name, folder, reader)
        training += mined.training
        held_out += mined.held_out
        sys.stdout.write(f"{name}: {len(training)} lists, {time.perf_counter() - started:.0f} s\n")
    rows_told = wrapped.read_rows([folder / f"{file}.jsonl.gz" for file in INSTRUCTED])
    training += training_lists(Plan(count=CONTRASTS, seed=0), rows_told)
    return training, held_out


def kept_lists(folder: Path, directory: Path) -> tuple[list[TrainingList], list[TrainingList]]:
    """Mined once for a directory."""
    file = directory / "lists.pickle"
    if not file.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        mined = mined_lists(folder)
        file.write_bytes(pickle.dumps(mined))
    training, held_out = pickle.loads(file.read_bytes())
    return training, held_out


def settle_head(checkpoint: Path, held_out: Sequence[TrainingList]) -> Head:
    """A list's softmax does not see the bias, nor what stands in for missing priors, so both are
    fitted afterwards and written to the checkpoint: the guess has the mean and spread of priors."""
    base = open_base(str(checkpoint), max_tokens=TOKENS)
    lists = [each for each in held_out if each.priors is not None]
    rows = [
        row
        for each in lists
        for row in base.rows(each.query, each.instruction, each.documents, each.priors)
    ]
    priors = np.array([prior for each in lists for prior in each.priors or ()], dtype=np.float32)
    labels = np.array([target for each in lists for target in each.targets], dtype=np.float32)
    logits = score_rows(base, rows)
    file = checkpoint / CONFIG
    config = json.loads(file.read_text(encoding="utf-8"))
    head = Head(**config["head"])
    matches = (logits - head.prior * priors - head.bias) / head.match
    slope, start = guess(priors, matches)
    settled = replace(
        head,
        bias=head.bias + balanced_shift(logits, labels),
        guess_slope=slope,
        guess_start=start,
        usual_match=float(matches.mean()),
    )
    config["head"] = {name: round(value, 4) for name, value in asdict(settled).items()}
    file.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return settled


def refitted_head(
    training: Sequence[TrainingList], held_out: Sequence[TrainingList], most: int
) -> str:
    """Step 0 from its data: the head of `untrained` fitted again, beside the one that is shipped.
    Once on mined lists, `most` of each source, once on held-out ones, which are the first stage's
    own candidates; bias and guess are always of these."""
    reader = untrained_reader()
    held = matched(usable(held_out, 0), reader)
    # The encoder has read English only.
    english = [each for each in training if SOURCES.get(source_of(each), ("", ""))[1] == "en"]
    fits = {}
    for name, lists in (
        ("mined lists", matched(usable(english, most), reader)),
        ("first candidates", held),
    ):
        weights = likeliest(lists)
        fits[f"{name} ({len(lists):,})"] = (weights, fitted_head(weights, held))
    return report(untrained().head, fits, held)


def halfway(checkpoint: Path, directory: Path, share: float) -> None:
    """The mean of untrained and trained weights, `share` of the trained: fine-tuning loses less of
    what the base knew outside the training's domains (Wortsman et al. 2022, WiSE-FT)."""
    start, files = untrained(), fused_files("trained", checkpoint)
    if files is None:
        raise WrongModel(f"{checkpoint} holds no built-in reranker.")
    before = dict(load_encoder(start, torch.float32)[0].named_parameters())
    after, importance = load_encoder(files, torch.float32)
    trained = {name: value for name, value in after.named_parameters() if ".layer." in name}
    changed = {name: v for name, v in trained.items() if not torch.equal(v, before[name])}
    mixed = {
        name: (1 - share) * before[name].detach() + share * value.detach()
        for name, value in changed.items()
    }
    head = Head(
        **{
            name: (1 - share) * getattr(start.head, name) + share * getattr(files.head, name)
            for name in asdict(start.head)
        }
    )
    write_fused(
        directory,
        base=files.base,
        description=files.description,
        head=head,
        weights={**mixed, IMPORTANCE: share * importance},
        max_document_tokens=files.max_document_tokens,
    )
    shutil.copy(checkpoint / MANIFEST, directory / MANIFEST)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train/ and eval/")
    parser.add_argument("--directory", type=Path, default=Path("var/default-model"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings")
    parser.add_argument("--lists", type=int, default=0, help="only so many, drawn by the seed")
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument(
        "--head",
        type=int,
        nargs="?",
        const=150,
        metavar="LISTS",
        help="only fit the head of the untrained model (step 0) again, on so many lists of each "
        "source (150; 0: all), and print it beside the shipped one",
    )
    options = parser.parse_args()
    training, held_out = kept_lists(options.folder / "train", options.directory)
    if options.head is not None:
        sys.stdout.write(refitted_head(training, held_out, options.head))
        return
    if options.lists:
        training = random.Random(options.seed).sample(training, options.lists)
    changed = dict(each.split("=", 1) for each in options.set)
    values = {**vars(SETTINGS), "seed": options.seed}
    for name, value in changed.items():
        values[name] = type(values[name])(value)
    torch.manual_seed(options.seed)
    own = "-".join([f"seed-{options.seed}", *(f"{k}-{v}" for k, v in sorted(changed.items()))])
    outcome = train(
        open_base("untrained", max_tokens=TOKENS, seed=options.seed),
        training,
        settings_from(values),
        directory=options.directory / own,
        held_out=held_out[::VALIDATED],
        on_event=lambda event: sys.stdout.write(f"{event}\n") and None,
        command=tuple(sys.argv),
    )
    checkpoint = options.directory / own / "checkpoint"
    mixed = options.directory / f"{own}-mixed" / "checkpoint"
    halfway(checkpoint, mixed, SHARE)
    for each in (checkpoint, mixed):
        sys.stdout.write(f"{each}: {settle_head(each, held_out[::VALIDATED])}\n")
    sys.stdout.write(f"{outcome}\n")
    if options.no_table:
        return
    for half in ("dev", "final"):
        command = [sys.executable, "-m", "benches.ship_gate", str(options.folder / "eval")]
        models = [str(mixed)] if half == "final" else [str(checkpoint), str(mixed)]
        subprocess.run([*command, "--model", *models, "--half", half], check=True)


if __name__ == "__main__":
    main()
