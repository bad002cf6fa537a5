"""The lists of the built-in reranker: queries of training rows with hard negatives, and such as
first stages found, held out. A file for each source, so that what was stopped goes on.

FOLDER holds train/ and eval/; nothing of eval/ is learned from.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from benches.mean_vectors import mean_vectors
from rerank.inference.devices import choose_device, choose_dtype
from rerank.inference.fused_files import untrained
from rerank.inference.fused_maxsim import FusedMaxSim
from rerank.inference.loading import quietly
from rerank.training.examples import TrainingList
from rerank.zelo.documentation import documentation_rows
from rerank.zelo.instructions import wrapped
from rerank.zelo.instructions.generate import Plan, training_lists
from rerank.zelo.mining import Mined, Mining, Row, corpus_of, mine, read_rows

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
# The encoder has read English only, and what is installed differs from machine to machine.
HEAD_SOURCES = tuple(name for name, (_, language) in SOURCES.items() if language == "en")
# Rows made from the documentation of what is installed.
INSTALLED = "installed"
# Queries with instructions, from the rows of these files.
CONTRASTS = "contrasts"
INSTRUCTED = ("docs-tech-en", "docs-oss-multi", "docs-policy-gov")
CONTRAST_COUNT = 800
ALL_SOURCES = (*SOURCES, INSTALLED, CONTRASTS)
# Lists of a source that is not English: enough to see that matches mean little there.
FOREIGN_LISTS = 300
# What the model reads of a text while it learns, and what the first stage reads for the mining.
TOKENS = 128


class Timed(Protocol):
    """Measures the seconds of what is done within."""

    def __call__(self, stage: str) -> AbstractContextManager[None]: ...


def untrained_reader() -> FusedMaxSim:
    device = choose_device()
    files = replace(untrained(), max_document_tokens=TOKENS)
    with quietly():
        return FusedMaxSim(files, device, choose_dtype(device))


def file_of(name: str, folder: Path) -> Path:
    """Of one of SOURCES."""
    return folder / "train" / f"{SOURCES[name][0]}.jsonl.gz"


def missing_files(names: Sequence[str], folder: Path) -> list[Path]:
    """Which the sources need and FOLDER has not."""
    files = [file_of(name, folder) for name in names if name in SOURCES]
    return [file for file in files if not file.is_file()]


def rows_of(name: str, folder: Path) -> list[Row]:
    """Of one of SOURCES, or of what is installed."""
    if name == INSTALLED:
        judged = folder / "eval"
        return documentation_rows(avoid=judged if judged.is_dir() else None)
    file, language = SOURCES[name]
    return read_rows(file_of(name, folder), language if file.startswith("docs-") else "")


def mined_source(name: str, folder: Path, reader: FusedMaxSim) -> Mined:
    """Of one of ALL_SOURCES."""
    if name == CONTRASTS:
        told = wrapped.read_rows([folder / "train" / f"{file}.jsonl.gz" for file in INSTRUCTED])
        return Mined(list(training_lists(Plan(count=CONTRAST_COUNT, seed=0), told)), [])
    language = SOURCES[name][1] if name in SOURCES else "en"
    is_english = language == "en"
    mining = Mining(
        passages=4000 if is_english else 1500,
        dense_weight=0.7 if is_english else 0.3,
        language=language,
        held_every=40 if is_english else 0,
    )
    mined = mine(
        corpus_of(rows_of(name, folder), mining, name),
        lambda texts: mean_vectors(texts, reader),
        mining,
        name,
    )
    return mined if is_english else replace(mined, training=mined.training[:FOREIGN_LISTS])


def kept_lists(
    folder: Path,
    directory: Path,
    names: Sequence[str] = ALL_SOURCES,
    timed: Timed = lambda stage: nullcontext(),
) -> tuple[list[TrainingList], list[TrainingList]]:
    """(training, held out) of the sources; each is mined once for a directory."""
    reader: FusedMaxSim | None = None
    training: list[TrainingList] = []
    held_out: list[TrainingList] = []
    for name in names:
        file = directory / "lists" / f"{name}.pickle"
        if not file.is_file():
            reader = reader or untrained_reader()
            with timed(f"lists of {name}"):
                _keep(file, mined_source(name, folder, reader))
        mined: Mined = pickle.loads(file.read_bytes())
        training += mined.training
        held_out += mined.held_out
    return training, held_out


def _keep(file: Path, mined: Mined) -> None:
    """All of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".new")
    beside.write_bytes(pickle.dumps(mined))
    beside.replace(file)
