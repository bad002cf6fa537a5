"""The head of the untrained built-in reranker ("step 0"), fitted with a frozen encoder.

`python -m benches.default_model FOLDER` calls it. The weights of first stage and MaxSim have the
likeliest softmax over each list; the bias puts even odds at 0; the guess gives MaxSim the mean and
spread of the first stage's scores. The lists are the first stage's own candidates, for that is what
the model meets in use.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

from rerank.inference.fused_head import Head
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


def usable(lists: Sequence[TrainingList]) -> list[TrainingList]:
    """Without those that have no priors or ask with other than Latin letters, where MaxSim is not
    believed."""
    return [
        each
        for each in lists
        if each.priors is not None and latin_share(each.query) == 1.0 and any(each.targets)
    ]


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
    weights, loss = _fit(columns, wanted, real, np.array([1.0, 1.0]))
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


def cross_fitted(lists: Sequence[Matched], start: Weights, parts: int = 5) -> float:
    """nDCG@10 of lists by weights that were fitted to the others: of `parts` parts, each by those
    of the other ones."""
    scores: list[FloatArray] = [np.zeros(0, dtype=np.float32)] * len(lists)
    for part in range(parts):
        others = [each for place, each in enumerate(lists) if place % parts != part]
        found, _ = _fit(*_padded(others), np.array([start.prior, start.match]))
        for place in range(part, len(lists), parts):
            each = lists[place]
            scores[place] = (found[0] * each.priors + found[1] * each.matches).astype(np.float32)
    return quality(scores, lists)


@dataclass(frozen=True)
class FittedHead:
    """`qualities`: nDCG@10 on the lists it was fitted to, of it and of what is beside it."""

    head: Head
    weights: Weights
    qualities: dict[str, float]


def fit_head(lists: Sequence[Matched], rounds: int = ROUNDS) -> FittedHead:
    weights = likeliest(lists, rounds)
    head = fitted_head(weights, lists)
    qualities = {
        "first stage": quality([each.priors for each in lists], lists),
        "head": quality(logits_of(head, lists), lists),
        "weights fitted to the other four fifths": cross_fitted(lists, weights),
    }
    return FittedHead(head, weights, qualities)


def digest_of(lists: Sequence[TrainingList]) -> str:
    """Of queries, documents and targets; the first stage's scores differ in their last digits from
    machine to machine."""
    digest = hashlib.sha256()
    for each in lists:
        whole = [each.query_id, each.query, list(each.documents), list(each.targets)]
        digest.update(json.dumps(whole).encode())
    return digest.hexdigest()


def report(shipped: Head, fitted: FittedHead, lists: Sequence[Matched]) -> str:
    """The fitted numbers beside the shipped ones."""
    own, before, weights = asdict(fitted.head), asdict(shipped), fitted.weights
    lines = ["| | shipped | fitted now | 95 % |", "|---" * 4 + "|"]
    for name, value in own.items():
        low, high = getattr(weights, f"{name}_interval", (None, None))
        interval = "" if low is None else f"{low:.2f} to {high:.2f}"
        lines.append(f"| {name} | {before[name]:.4f} | {value:.4f} | {interval} |")
    ratios = [head.match / head.prior for head in (shipped, fitted.head)]
    lines.append(f"| match / prior | {ratios[0]:.4f} | {ratios[1]:.4f} | |")
    now = quality(logits_of(shipped, lists), lists)
    lines.append(f"| nDCG@10 | {now:.4f} | {fitted.qualities['head']:.4f} | |")
    lines.append(f"\nnDCG@10 of the same {len(lists):,} lists:")
    lines += [f"* {name}: {value:.4f}" for name, value in fitted.qualities.items()]
    return "\n".join(lines) + "\n"


def furthest(one: Head, other: Head) -> float:
    """The largest difference of two heads' numbers."""
    pairs = zip(asdict(one).values(), asdict(other).values(), strict=True)
    return max(abs(a - b) for a, b in pairs)


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

    # So far that the digits which are kept do not depend on where it starts.
    exact = {"ftol": 1e-15, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=exact)
    return np.asarray(found.x, dtype=np.float64), float(found.fun)
