"""How good a model is on examples it was not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from rerank.errors import BadInput
from rerank.ranking.metrics import per_query
from rerank.types import FloatArray

from .bases import Trainable, TrainingRow, score_rows
from .examples import Examples, PairExample, TrainingList
from .processes import Processes

NDCG = "nDCG@10"
ACCURACY = "pairwise accuracy"
LOSS = "loss"
ERROR = "squared error"
_BROKEN = "no number"
# Grades are whole numbers; a target's third decimal still counts.
_GRADES = 1000
# Rows that are scored together, so that a held-out set of any size fits the memory.
_AT_ONCE = 2048

# What is added up over processes: name -> (sum, count).
_Sums = dict[str, tuple[float, float]]


def validate(
    base: Trainable, examples: Examples, tokens: int, autocast: bool, processes: Processes
) -> dict[str, float]:
    """Name -> value; {} for no examples, and where a score is no number.

    Lists: mean nDCG@10 over those with a target above 0 (the gain is the target), the share of
    document pairs of different targets that stand in the right order, a tie counting half, and the
    mean squared error of the relevance as it is served. Pairs: that share, weighted, among
    preferences other than 1/2, and the mean `pair_bce`. Queries that cannot be read are left out.
    """
    own = examples[processes.rank :: processes.count]
    sums: _Sums = {}
    lists = [each for each in own if isinstance(each, TrainingList)]
    pairs = [each for each in own if isinstance(each, PairExample)]
    _add_lists(sums, base, lists, tokens, autocast)
    _add_pairs(sums, base, pairs, tokens, autocast)
    total: _Sums = {}
    for found in processes.gathered(sums):
        _add(total, found)
    if _BROKEN in total:
        return {}
    return {name: value / count for name, (value, count) in total.items() if count > 0}


def better(found: dict[str, float], best: dict[str, float] | None) -> bool:
    """Whether `found` beats `best`: by nDCG@10, where that is the same by the pairwise accuracy,
    then by the error (few held-out queries are soon in perfect order); pairs by the loss."""
    if best is None:
        return True
    return _rank(found) > _rank(best)


def _rank(metrics: dict[str, float]) -> tuple[float, ...]:
    if LOSS in metrics:
        return (-metrics[LOSS],)
    return (
        round(metrics.get(NDCG, -1.0), 6),
        round(metrics.get(ACCURACY, -1.0), 6),
        -round(metrics.get(ERROR, 1.0), 4),
    )


def _add_lists(
    sums: _Sums, base: Trainable, lists: Sequence[TrainingList], tokens: int, autocast: bool
) -> None:
    waiting: list[tuple[TrainingList, list[TrainingRow]]] = []
    rows = 0
    for place, example in enumerate(lists):
        try:
            found = base.rows(example.query, example.instruction, example.documents, example.priors)
        except BadInput:
            found = []
        if found:
            waiting.append((example, found))
            rows += len(found)
        if waiting and (rows >= _AT_ONCE or place == len(lists) - 1):
            scores = score_rows(base, [row for _, of in waiting for row in of], tokens, autocast)
            start = 0
            for each, of in waiting:
                own = scores[start:][: len(of)]
                _add(sums, list_measures(each.documents, each.targets, own, base.temperature))
                start += len(of)
            waiting, rows = [], 0


def list_measures(
    documents: Sequence[str],
    targets: Sequence[float],
    scores: FloatArray,
    temperature: float = 1.0,
) -> dict[str, tuple[float, float]]:
    """Name -> (sum, count) for one list."""
    if not np.isfinite(scores).all():
        return {_BROKEN: (1.0, 1.0)}
    # Ties fall by the text, not by the place, which a first stage filled best first.
    names = [
        f"{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]} {place}"
        for place, text in enumerate(documents)
    ]
    grades = {name: round(_GRADES * t) for name, t in zip(names, targets, strict=True)}
    run = {name: float(score) for name, score in zip(names, scores, strict=True)}
    measured = per_query({"q": run}, {"q": grades}, [NDCG])[NDCG]
    wanted = np.asarray(targets, dtype=np.float64)
    higher = wanted[:, None] > wanted[None, :]
    values = np.asarray(scores, dtype=np.float64)
    right = np.sign(values[:, None] - values[None, :]) / 2 + 0.5
    relevance = (1.0 + np.tanh(values / temperature / 2)) / 2
    return {
        ERROR: (float(((relevance - wanted) ** 2).sum()), float(len(wanted))),
        NDCG: (sum(measured.values()), float(len(measured))),
        ACCURACY: (float(right[higher].sum()), float(higher.sum())),
    }


def _add_pairs(
    sums: _Sums, base: Trainable, pairs: Sequence[PairExample], tokens: int, autocast: bool
) -> None:
    kept: list[PairExample] = []
    rows: list[TrainingRow] = []
    for pair in pairs:
        try:
            rows.append(base.pair_row(pair.query, pair.instruction, pair.a, pair.b))
            kept.append(pair)
        except BadInput:
            continue
    if not kept:
        return
    logits = score_rows(base, rows, tokens, autocast).astype(np.float64)
    if not np.isfinite(logits).all():
        _add(sums, {_BROKEN: (1.0, 1.0)})
        return
    wanted = np.array([pair.preference for pair in kept])
    weights = np.array([pair.weight for pair in kept])
    right = (np.sign(logits) * np.sign(wanted - 0.5) + 1) / 2
    decided = weights * (wanted != 0.5)
    each = np.logaddexp(0.0, logits) - wanted * logits
    _add(
        sums,
        {
            ACCURACY: (float((right * decided).sum()), float(decided.sum())),
            LOSS: (float((each * weights).sum()), float(weights.sum())),
        },
    )


def _add(sums: _Sums, found: _Sums) -> None:
    for name, (value, count) in found.items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + value, before[1] + count)
