"""The challenger: the built-in reranker trained further from step 0, and its weights mixed half-way
with step 0's."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from benches.default_head import balanced_shift, guess
from benches.default_lists import TOKENS
from rerank.errors import WrongModel
from rerank.inference.devices import choose_device
from rerank.inference.fused_files import (
    CONFIG,
    IMPORTANCE,
    FusedFiles,
    fused_files,
    load_encoder,
    untrained,
    write_fused,
)
from rerank.inference.fused_head import Head, rounded
from rerank.training.bases import open_base, score_rows
from rerank.training.checkpoint import MANIFEST
from rerank.training.examples import TrainingList
from rerank.training.fused_maxsim_base import FusedMaxSimBase
from rerank.training.loop import train
from rerank.training.outcome import Outcome
from rerank.training.settings import Settings, settings_from

# One in so many of the held-out lists is validated on. The head of step 0 was fitted to all of
# them, so its own nDCG there is that of lists it has seen; the challenger starts from that head and
# adds nothing learned from them.
VALIDATED = 4
# Of the trained weights in the mixture.
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


@dataclass(frozen=True)
class Training:
    """`changed`: settings by name, as text. `lists`: only so many, drawn by the seed; 0 for all."""

    seed: int = 0
    lists: int = 0
    changed: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        parts = [f"seed-{self.seed}", *(f"{k}-{v}" for k, v in sorted(self.changed.items()))]
        return "-".join([*parts, *([f"lists-{self.lists}"] if self.lists else [])])

    def settings(self) -> Settings:
        values = {**vars(SETTINGS), "seed": self.seed}
        for name, value in self.changed.items():
            values[name] = type(values[name])(value)
        return settings_from(values)


def train_challenger(
    start: FusedFiles,
    training: Sequence[TrainingList],
    held_out: Sequence[TrainingList],
    plan: Training,
    directory: Path,
) -> Outcome:
    """Trained from `start` into `directory`; what was stopped goes on."""
    chosen = list(training)
    if plan.lists:
        chosen = random.Random(plan.seed).sample(chosen, plan.lists)
    torch.manual_seed(plan.seed)
    return train(
        FusedMaxSimBase(start, choose_device(), TOKENS),
        chosen,
        plan.settings(),
        directory=directory,
        held_out=held_out[::VALIDATED],
        on_event=_tell,
        command=tuple(sys.argv),
    )


def _tell(event: object) -> None:
    sys.stdout.write(f"{event}\n")
    sys.stdout.flush()


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
    settled = rounded(settled)
    config["head"] = asdict(settled)
    file.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return settled


def halfway(start: FusedFiles, checkpoint: Path, directory: Path, share: float) -> None:
    """The mean of untrained and trained weights, `share` of the trained: fine-tuning loses less of
    what the base knew outside the training's domains (Wortsman et al. 2022, WiSE-FT)."""
    files = trained_files("trained", checkpoint)
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


def trained_files(name: str, directory: Path) -> FusedFiles:
    """Raises WrongModel."""
    files = fused_files(name, directory)
    if files is None:
        raise WrongModel(f"{directory} holds no built-in reranker.")
    return files


def step_0(head: Head) -> FusedFiles:
    return replace(untrained(), head=head)
