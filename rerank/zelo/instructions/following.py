"""Whether a reranker orders documents as an instruction says, and what instructions break."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from rerank.errors import BadInput
from rerank.ranking.significance import bootstrap_interval
from rerank.types import Reranker, RerankRequest

from .contrasts import CASES, CaseName, Contrast, Priors

ALL = "all"
CONFIDENCE = 0.95
ROUNDS = 1000

# (done, total)
Hook = Callable[[int, int], None]


@dataclass(frozen=True)
class Share:
    """A mean over contrasts and its 95 % interval; NaN where there were none. The interval is
    Wilson's (1927) where each contrast is right or wrong, which is honest at 0 and 1 too, and
    else the bootstrap's."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Following:
    """Of one kind of contrast. Who ignores instructions has `either` 0.5 and `both` 0; who orders
    by chance anew each time has `both` 0.25. Equal scores count as wrong.

    `either`: share of the two opposite instructions under which the right document of the pair
    stands above the other. `both`: share of pairs that are right under both. `shift`: half of how
    far the difference of relevance moves from one instruction to its opposite, in [-1, 1].
    `topic_alone`, `topic_beside`: share of (answering, not answering) document pairs in the right
    order without instruction, and under one that concerns neither. `damage`: the first minus the
    second. `reordered`: share of all document pairs whose order an instruction that concerns
    neither turns round. `topic_told`: as `topic_alone`, of the documents that the instruction
    prefers, under it: below, metadata outweighs the question.
    """

    contrasts: int
    either: Share
    both: Share
    shift: Share
    topic_alone: Share
    topic_beside: Share
    topic_told: Share
    damage: Share
    reordered: Share

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FollowingReport:
    """`kinds`: kind -> its figures, the last one "all"."""

    model: str
    kinds: Mapping[str, Following]
    truncated: int

    def as_json(self) -> dict[str, Any]:
        kinds = {name: found.as_json() for name, found in self.kinds.items()}
        return {"model": self.model, "truncated": self.truncated, "kinds": kinds}

    def as_text(self) -> str:
        """A table: a line for each kind, shares in %."""
        columns = ("both right", "right", "shift", "topic", "damage", "told", "reordered")
        width = max(map(len, [*self.kinds, "kind"]))
        lines = [f"{'kind':<{width}}{'pairs':>7}{columns[0]:>22}{columns[1]:>22}"]
        lines[0] += "".join(f"{name:>11}" for name in columns[2:])
        for name, found in self.kinds.items():
            cells = "".join(
                f"{100 * value:>11.1f}"
                for value in (
                    found.shift.value,
                    found.topic_alone.value,
                    found.damage.value,
                    found.topic_told.value,
                    found.reordered.value,
                )
            )
            lines.append(
                f"{name:<{width}}{found.contrasts:>7}{_ranged(found.both):>22}"
                f"{_ranged(found.either):>22}{cells}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Measured:
    """One contrast's values, in the order of `Following`'s shares."""

    kind: str
    values: tuple[float, ...]


def evaluate_following(
    reranker: Reranker,
    contrasts: Iterable[Contrast],
    *,
    priors: Priors | None = None,
    on_progress: Hook | None = None,
) -> FollowingReport:
    """Scores every contrast under each of its instructions. `priors`: for rerankers that start from
    the first stage's scores; without, all documents start alike. Raises BadInput for no contrasts,
    and what the reranker raises."""
    every = list(contrasts)
    if not every:
        raise BadInput("There are no contrasts to measure on.")
    measured, truncated = [], 0
    for done, contrast in enumerate(every, start=1):
        scores, cut = _scored(reranker, contrast, priors)
        truncated += cut
        measured.append(_Measured(contrast.kind, _values(contrast, scores)))
        if on_progress is not None:
            on_progress(done, len(every))
    groups: dict[str, list[_Measured]] = {}
    for each in measured:
        groups.setdefault(each.kind, []).append(each)
    kinds = {kind: _following(groups[kind]) for kind in sorted(groups)}
    return FollowingReport(reranker.card.name, {**kinds, ALL: _following(measured)}, truncated)


_Scores = Mapping[CaseName, tuple[NDArray[np.float32], NDArray[np.float32]]]


def _scored(reranker: Reranker, contrast: Contrast, priors: Priors | None) -> tuple[_Scores, int]:
    """Case -> (logits, relevance), and how many documents were cut."""
    first = None if priors is None else priors(contrast.query, contrast.documents)
    found, truncated = {}, 0
    for name in CASES:
        told = contrast.case(name).instruction or None
        request = RerankRequest(contrast.query, contrast.documents, told, first)
        scores = reranker.score(request)
        truncated += scores.truncated
        found[name] = (scores.logits, scores.relevance)
    return found, truncated


def _values(contrast: Contrast, scores: _Scores) -> tuple[float, ...]:
    one, other = contrast.first, contrast.second
    # As Python's own, since the sum of two of numpy's truth values is "or".
    wanted = bool(scores["for"][0][one] > scores["for"][0][other])
    unwanted = bool(scores["against"][0][other] > scores["against"][0][one])
    apart = [float(scores[name][1][one] - scores[name][1][other]) for name in ("for", "against")]
    on_topic = [at for at, facts in enumerate(contrast.facts) if facts.on_topic]
    off_topic = [at for at, facts in enumerate(contrast.facts) if not facts.on_topic]
    alone, beside = (_in_order(scores[name][0], on_topic, off_topic) for name in ("none", "beside"))
    told = [
        _in_order(scores[name][0], _most_wanted(contrast, name), off_topic)
        for name in ("for", "against")
    ]
    return (
        (wanted + unwanted) / 2,
        float(wanted and unwanted),
        (apart[0] - apart[1]) / 2,
        alone,
        beside,
        sum(told) / 2,
        alone - beside,
        _turned(scores["none"][0], scores["beside"][0]),
    )


def _most_wanted(contrast: Contrast, name: CaseName) -> list[int]:
    aims = contrast.case(name).targets
    return [at for at, aim in enumerate(aims) if aim == max(aims)]


def _in_order(logits: NDArray[np.float32], above: Sequence[int], below: Sequence[int]) -> float:
    """NaN where there is nothing to compare."""
    if not above or not below:
        return float("nan")
    return float(np.mean(logits[list(above)][:, None] > logits[list(below)][None, :]))


def _turned(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    upper = np.triu_indices(len(before), 1)
    signs = [np.sign(values[:, None] - values[None, :])[upper] for values in (before, after)]
    return float(np.mean(signs[0] * signs[1] < 0))


def _following(measured: Sequence[_Measured]) -> Following:
    table = np.array([each.values for each in measured], dtype=np.float64)
    either, both, *rest = (_share(column) for column in table.T)
    wilson = binomtest(round(table[:, 1].sum()), len(table)).proportion_ci(CONFIDENCE, "wilson")
    both = Share(both.value, float(wilson.low), float(wilson.high))
    return Following(len(measured), either, both, *rest)


def _share(values: NDArray[np.float64]) -> Share:
    known = values[~np.isnan(values)]
    if not len(known):
        return Share(float("nan"), float("nan"), float("nan"))
    # The same draws for all figures and models.
    low, high = bootstrap_interval(known, ROUNDS, CONFIDENCE, np.random.default_rng(0))
    return Share(float(known.mean()), low, high)


def _ranged(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
