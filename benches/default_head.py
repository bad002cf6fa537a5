"""The head of the untrained built-in reranker ("step 0"), fitted with a frozen encoder.

`python -m benches.default_model FOLDER --head` calls it. The weights of first stage and MaxSim have
the likeliest softmax over each list; the bias puts even odds at 0; the guess gives MaxSim the mean
and spread of the first stage's scores.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

from rerank.inference.fused_files import Head
from rerank.inference.fused_maxsim import FusedMaxSim, latin_share
from rerank.training.examples import TrainingList
from rerank.training.validation import NDCG, list_measures
from rerank.types import FloatArray

Floats = NDArray[np.float64]
# Of the lists' draws, for the intervals.
ROUNDS = 200
# Documents read at a time.
_AT_ONCE = 512


@dataclass(frozen=True)
class Matched:
    """The documents of a list with the first stage's scores, MaxSim and targets, (n,) each."""

    documents: tuple[str, ...]
    priors: FloatArray
    matches: FloatArray
    targets: FloatArray


@dataclass(frozen=True)
class Weights:
    """What the likeliest softmax multiplies, each with its 95 % interval over lists drawn with
    replacement. `loss`: mean cross-entropy of a list."""

    prior: float
    match: float
    prior_interval: tuple[float, float]
    match_interval: tuple[float, float]
    loss: float


def usable(lists: Sequence[TrainingList], most: int, seed: int = 0) -> list[TrainingList]:
    """At most so many of each source (0: all), drawn by the seed; without those that have no
    priors or ask with other than Latin letters, where MaxSim is not believed."""
    by_source: dict[str, list[TrainingList]] = {}
    for each in lists:
        if each.priors is not None and latin_share(each.query) == 1.0 and any(each.targets):
            by_source.setdefault(source_of(each), []).append(each)
    chance = random.Random(f"head {seed}")
    found = []
    for own in by_source.values():
        found += chance.sample(own, min(most, len(own))) if most else own
    return found


def source_of(each: TrainingList) -> str:
    return each.query_id.rsplit("-", 1)[0]


def matched(lists: Sequence[TrainingList], reader: FusedMaxSim) -> list[Matched]:
    """Each text of a source is read once; sources have none in common."""
    by_source: dict[str, list[TrainingList]] = {}
    for each in lists:
        by_source.setdefault(source_of(each), []).append(each)
    found = []
    for name, own in by_source.items():
        vectors = _read(sorted({text for each in own for text in each.documents}, key=len), reader)
        for each in own:
            documents = [vectors[text] for text in each.documents]
            matches = reader.match(each.query, each.instruction, documents)
            priors = np.array(each.priors, dtype=np.float32)
            targets = np.array(each.targets, dtype=np.float32)
            found.append(Matched(each.documents, priors, matches, targets))
        sys.stderr.write(f"{name}: {len(own):,} lists, {len(vectors):,} texts\n")
    return found


def _read(texts: Sequence[str], reader: FusedMaxSim) -> dict[str, torch.Tensor]:
    vectors: dict[str, torch.Tensor] = {}
    for start in range(0, len(texts), _AT_ONCE):
        part = texts[start : start + _AT_ONCE]
        # Copies of their own: a part of a batch would keep all of the batch.
        vectors.update(zip(part, (v.clone() for v in reader.read_documents(part)), strict=True))
    return vectors


def likeliest(lists: Sequence[Matched], rounds: int = ROUNDS, seed: int = 0) -> Weights:
    """The weights of priors and matches under which the lists' softmax is likeliest; targets
    divided by their sum are what it should give."""
    columns, wanted, real = _padded(lists)
    weights, loss = _fit(columns, wanted, real, np.array([6.0, 9.0]))
    chance = np.random.default_rng(seed)
    drawn = []
    for _ in range(rounds):
        places = chance.integers(0, len(lists), len(lists))
        drawn.append(_fit(columns[places], wanted[places], real[places], weights)[0])
    low, high = np.quantile(np.array(drawn or [weights]), [0.025, 0.975], axis=0).tolist()
    return Weights(float(weights[0]), float(weights[1]), (low[0], high[0]), (low[1], high[1]), loss)


def fitted_head(weights: Weights, lists: Sequence[Matched]) -> Head:
    """`weights` with the bias and the guess that `lists` ask for."""
    matches = np.concatenate([each.matches for each in lists])
    priors = np.concatenate([each.priors for each in lists])
    labels = np.concatenate([each.targets for each in lists])
    slope, start = guess(priors, matches)
    bare = Head(weights.prior, weights.match, 0.0, slope, start, float(matches.mean()))
    return replace(bare, bias=balanced_shift(bare.logits(matches, priors.tolist()), labels))


def guess(priors: FloatArray, matches: FloatArray) -> tuple[float, float]:
    """(slope, start) of the line through the matches that has the mean and spread of the priors."""
    slope = float(priors.std() / matches.std())
    return slope, float(priors.mean()) - slope * float(matches.mean())


def balanced_shift(logits: FloatArray, labels: FloatArray) -> float:
    """What to add to the logits so that sigmoid is as wrong on relevant documents as on the others,
    each group's mean counting alike: the bias of a logistic regression with balanced classes."""

    def excess(shift: float) -> float:
        relevance = 1 / (1 + np.exp(-(logits.astype(np.float64) + shift)))
        return float(relevance[labels < 0.5].mean() - (1 - relevance[labels > 0.5]).mean())

    return float(brentq(excess, -50.0, 50.0))


def quality(scores: Sequence[FloatArray], lists: Sequence[Matched]) -> float:
    """Mean nDCG@10 of the lists, whose scores are given."""
    measures = [
        list_measures(each.documents, each.targets.tolist(), own)[NDCG]
        for each, own in zip(lists, scores, strict=True)
    ]
    return sum(total for total, _ in measures) / max(sum(count for _, count in measures), 1.0)


def logits_of(head: Head, lists: Sequence[Matched]) -> list[FloatArray]:
    return [head.logits(each.matches, each.priors.tolist()) for each in lists]


def report(shipped: Head, fits: Mapping[str, tuple[Weights, Head]], held: Sequence[Matched]) -> str:
    """The fitted numbers beside the shipped ones."""
    names = list(fits)
    lines = ["| | shipped | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for key, value in asdict(shipped).items():
        own = [f"{asdict(head)[key]:.3f}" for _, head in fits.values()]
        lines.append(f"| {key} | {value:g} | " + " | ".join(own) + " |")
    ratios = [f"{head.match / head.prior:.2f}" for _, head in fits.values()]
    lines.append(f"| match / prior | {shipped.match / shipped.prior:.2f} | {' | '.join(ratios)} |")
    for name in ("prior", "match"):
        parts = [getattr(weights, f"{name}_interval") for weights, _ in fits.values()]
        cells = [f"{low:.2f} to {high:.2f}" for low, high in parts]
        lines.append(f"| {name}, 95 % | | {' | '.join(cells)} |")
    heads = [shipped, *(head for _, head in fits.values())]
    cells = [f"{quality(logits_of(head, held), held):.4f}" for head in heads]
    lines.append("| nDCG@10, held out | " + " | ".join(cells) + " |")
    first = quality([each.priors for each in held], held)
    lines.append(f"\nFirst stage alone, the same {len(held):,} held-out lists: {first:.4f}.")
    return "\n".join(lines) + "\n"


def _padded(lists: Sequence[Matched]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """(lists, documents, 2) of priors and matches, (lists, documents) of what a softmax should
    give, and which of these are there."""
    longest = max(len(each.matches) for each in lists)
    columns = np.zeros((len(lists), longest, 2))
    wanted = np.zeros((len(lists), longest))
    real = np.zeros((len(lists), longest), dtype=np.bool_)
    for place, each in enumerate(lists):
        count = len(each.matches)
        columns[place, :count] = np.stack([each.priors, each.matches], axis=1)
        wanted[place, :count] = each.targets / each.targets.sum()
        real[place, :count] = True
    return columns, wanted, real


def _fit(
    columns: Floats, wanted: Floats, real: NDArray[np.bool_], start: Floats
) -> tuple[Floats, float]:
    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = np.where(real, columns @ weights, -np.inf)
        top = logits.max(axis=1, keepdims=True)
        raised = np.exp(logits - top)
        total = raised.sum(axis=1, keepdims=True)
        shares = raised / total
        logs = np.where(real, logits - top - np.log(total), 0.0)
        slope = np.einsum("qd,qdc->c", shares - wanted, columns) / len(columns)
        return float(-(wanted * logs).sum() / len(columns)), slope

    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64), float(found.fun)
