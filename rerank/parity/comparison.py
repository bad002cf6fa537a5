"""A candidate held against a reference that is believed to be right."""

from __future__ import annotations

import numpy as np
from scipy.stats import kendalltau

from rerank.parity.own_checks import instruction_sentence
from rerank.parity.probes import Probe
from rerank.parity.report import Check
from rerank.parity.subject import Subject, gap
from rerank.ranking.metrics import evaluate
from rerank.types import FloatArray, RerankScores

LEAST_TAU = 0.99
LEAST_TAU_OF_8_BITS = 0.98
MOST_NDCG_DIFFERENCE = 0.002
# Times the nDCG@10 that random orders have on the same probes.
BETTER_THAN_CHANCE = 1.5
# Pairs of the preference probe that rounding may turn in one model and not in the other.
_MOST_TURNED_APART = 1


def kendall_tau(candidate: Subject, reference: Subject, least: float | None = None) -> Check:
    """Mean and lowest Kendall tau over the queries; the mean is held against `least`.

    Pairs that the reference holds apart by no more than the coarser number format rounds do not
    count: no model of that format could promise their order. `plain_mean` is the tau-b of all.
    """
    if least is None:
        least = LEAST_TAU_OF_8_BITS if "int8" in candidate.card.dtype else LEAST_TAU
    rounding = max(candidate.tolerance.rounding, reference.tolerance.rounding)
    apart = rounding * reference.spread
    both = list(zip(candidate.base, reference.base, strict=True))
    taus = [_tau(a.logits, b.logits, apart) for a, b in both]
    mean, lowest = float(np.mean(taus)), float(np.min(taus))
    plain = float(np.mean([_plain_tau(a.logits, b.logits) for a, b in both]))
    sentence = f"The orders agree with Kendall tau {mean:.4f}, at worst {lowest:.4f}"
    if apart:
        sentence += f" ({plain:.4f} with the pairs that rounding may turn)"
    figures = {"mean": mean, "lowest": lowest, "plain_mean": plain}
    return Check("kendall_tau", mean >= least, f"{sentence}.", figures, least)


def relevance_error(candidate: Subject, reference: Subject) -> Check:
    """The largest distance of two relevances of one pair."""
    if candidate.ranks_lists or reference.ranks_lists:
        return Check(
            "relevance_error",
            None,
            "One of the two ranks whole lists; its numbers say an order only.",
        )
    error = _largest(candidate, reference, "relevance")
    limit = _error_limit(candidate, reference)
    sentence = f"No relevance is more than {error:.2g} off."
    return Check("relevance_error", error <= limit, sentence, {"error": error}, limit)


def logit_error(candidate: Subject, reference: Subject) -> Check:
    """The largest distance of two logits of one pair, held against a share of their spread."""
    if candidate.ranks_lists or reference.ranks_lists:
        return Check(
            "logit_error", None, "One of the two ranks whole lists; its numbers say an order only."
        )
    error = _largest(candidate, reference, "logits")
    limit = _error_limit(candidate, reference) * reference.spread
    sentence = f"No logit is more than {error:.2g} off; they spread over {reference.spread:.3g}."
    figures = {"error": error, "spread": reference.spread}
    return Check("logit_error", error <= limit, sentence, figures, limit)


def ndcg(candidate: Subject, reference: Subject) -> Check:
    """The difference in nDCG@10 over the graded probes, where the reference has an order to keep:
    in one by chance near ties turn round, and each costs more than the limit."""
    theirs, ours = _ndcg(reference), _ndcg(candidate)
    if theirs is None or ours is None:
        return Check("ndcg", None, "The probe set has no grades.")
    chance = _chance(reference)
    if theirs < BETTER_THAN_CHANCE * chance:
        sentence = f"The reference orders the probes by chance (nDCG@10 {theirs:.4f})."
        return Check("ndcg", None, sentence, {"reference": theirs, "chance": chance})
    difference = ours - theirs
    sentence = f"nDCG@10 is {ours:.4f} instead of {theirs:.4f}."
    figures = {"difference": difference, "candidate": ours, "reference": theirs}
    passed = abs(difference) <= MOST_NDCG_DIFFERENCE
    return Check("ndcg", passed, sentence, figures, MOST_NDCG_DIFFERENCE)


def instruction_agrees(candidate: Subject, reference: Subject) -> Check:
    """Instructions do to the candidate what they do to the reference."""
    use, turned, pairs, change = candidate.instruction_use
    wanted, wanted_turned, _, _ = reference.instruction_use
    figures = {
        "result": use,
        "reference": wanted,
        "turned": turned,
        "reference_turned": wanted_turned,
        "pairs": pairs,
        "change": change,
    }
    near = "ignored" not in (use, wanted) and abs(turned - wanted_turned) <= _MOST_TURNED_APART
    if use == wanted or near:
        sentence = f"{instruction_sentence(candidate)} The reference does the same."
        return Check("instruction_agrees", True, sentence, figures)
    sentence = f"Instructions: the candidate {_does(use)}, the reference {_does(wanted)}."
    return Check("instruction_agrees", False, sentence, figures)


def _does(use: str) -> str:
    return {
        "honoured": "honours them",
        "ignored": "ignores them",
        "changes scores": "changes scores without honouring them",
    }[use]


def _tau(a: FloatArray, b: FloatArray, apart: float) -> float:
    """(agreeing - opposed) / pairs that `b` holds further apart than `apart`; 1 without any."""
    upper = np.triu_indices(len(b), 1)
    kept = np.isfinite(a) & np.isfinite(b)
    ours = (a[:, None] - a[None, :])[upper]
    theirs = (b[:, None] - b[None, :])[upper]
    counted = (kept[:, None] & kept[None, :])[upper] & (np.abs(theirs) > apart)
    if not counted.any():
        return 1.0
    return float(np.mean(np.sign(ours[counted]) * np.sign(theirs[counted])))


def _plain_tau(a: FloatArray, b: FloatArray) -> float:
    """Tau-b; 1 for lists without an order in both, 0 for one beside a list with one."""
    kept = np.isfinite(a) & np.isfinite(b)
    a, b = a[kept], b[kept]
    if len(a) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return 1.0
    tau = float(kendalltau(a, b).statistic)
    return tau if np.isfinite(tau) else 0.0


def _largest(candidate: Subject, reference: Subject, number: str) -> float:
    return max(
        gap(getattr(a, number), getattr(b, number))
        for a, b in zip(candidate.base, reference.base, strict=True)
    )


def _error_limit(candidate: Subject, reference: Subject) -> float:
    return max(candidate.tolerance.error, reference.tolerance.error)


def _ndcg(subject: Subject) -> float | None:
    """Mean over the graded probes; ties fall to the document given first."""
    run, qrels = {}, {}
    for place, (probe, scores) in enumerate(zip(subject.probes, subject.base, strict=True)):
        if _is_graded(probe):
            run[str(place)] = _by_rank(scores)
            qrels[str(place)] = {str(i): grade for i, grade in enumerate(probe.grades or ())}
    return evaluate(run, qrels, ["nDCG@10"])["nDCG@10"] if qrels else None


def _chance(subject: Subject) -> float:
    """The mean nDCG@10 of random orders: every place then gains the mean grade."""
    values = []
    for probe in filter(_is_graded, subject.probes):
        gains = np.sort(np.maximum(probe.grades or (), 0))[::-1]
        discounts = 1 / np.log2(np.arange(2, 2 + min(10, len(gains))))
        best = float(gains[:10] @ discounts)
        values.append(float(gains.mean()) * float(discounts.sum()) / best)
    return float(np.mean(values))


def _is_graded(probe: Probe) -> bool:
    return probe.grades is not None and any(grade > 0 for grade in probe.grades)


def _by_rank(scores: RerankScores) -> dict[str, float]:
    logits = np.where(np.isfinite(scores.logits), scores.logits, -np.inf)
    order = np.argsort(-logits, kind="stable")
    return {str(place): -float(rank) for rank, place in enumerate(order)}
