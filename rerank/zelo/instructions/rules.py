"""What an instruction asks of documents whose facts are known. Nothing here guesses."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# Targets of training, ours. An on-topic document is worth this much while nothing is asked of it,
NEUTRAL = 0.75
# or this much where its query uses a term that nobody has explained;
UNEXPLAINED = 0.4
# the best one under an instruction;
BEST = 0.9
# the worst one under a preference, and one that the instruction excludes;
LEAST_PREFERRED = 0.55
EXCLUDED = 0.15
# one that does not answer the query, whatever is asked.
OFF_TOPIC = 0.05


@dataclass(frozen=True)
class Facts:
    """What is true of a document. `labels`: family -> value, for example "source" -> "official",
    "region" -> "Norway", "form" -> "table". `about`: the object it speaks of."""

    on_topic: bool = True
    date: datetime.date | None = None
    version: tuple[int, int] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True)
class ByDate:
    """Prefer later dates (`newest`) or earlier ones."""

    newest: bool
    strict: Literal[False] = False

    def worth(self, facts: Facts) -> float | None:
        if facts.date is None:
            return None
        return float(facts.date.toordinal() * (1 if self.newest else -1))


@dataclass(frozen=True)
class ByVersion:
    """Prefer higher versions (`newest`) or lower ones."""

    newest: bool
    strict: Literal[False] = False

    def worth(self, facts: Facts) -> float | None:
        if facts.version is None:
            return None
        major, minor = facts.version
        return (major * 1000.0 + minor) * (1 if self.newest else -1)


@dataclass(frozen=True)
class Since:
    """Only documents dated in `year` or later (`after`), or only those dated before it."""

    year: int
    after: bool
    strict: Literal[True] = True

    def worth(self, facts: Facts) -> float | None:
        return None if facts.date is None else float((facts.date.year >= self.year) == self.after)


@dataclass(frozen=True)
class Labelled:
    """Documents whose label in `family` is `value`, or with `excluded` those where it is another.
    `strict`: the others are excluded, not only less wanted. `instead_of`: the value that the
    sentence names as the less wanted one, if any."""

    family: str
    value: str
    strict: bool = False
    excluded: bool = False
    instead_of: str = ""

    def worth(self, facts: Facts) -> float | None:
        label = facts.labels.get(self.family)
        return None if label is None else float((label == self.value) != self.excluded)


@dataclass(frozen=True)
class Means:
    """`term` in the query stands for `meaning`: only documents about that are meant."""

    term: str
    meaning: str
    strict: Literal[True] = True

    def worth(self, facts: Facts) -> float | None:
        return float(facts.about == self.meaning) if facts.about else None


Wish = ByDate | ByVersion | Labelled


@dataclass(frozen=True)
class Then:
    """Prefer by `first`; `second` decides only where that leaves documents equal."""

    first: Wish
    second: Wish
    strict: Literal[False] = False

    def worth(self, facts: Facts) -> tuple[float, float] | None:
        first, second = self.first.worth(facts), self.second.worth(facts)
        return None if first is None or second is None else (first, second)


Rule = ByDate | ByVersion | Since | Labelled | Means | Then
Worth = float | tuple[float, float]


def targets(
    facts: Sequence[Facts], rule: Rule | None = None, neutral: float = NEUTRAL
) -> tuple[float, ...]:
    """Relevance in [0, 1] of each document. None, and facts that the rule does not concern: all
    on-topic documents are worth `neutral`. Documents of equal worth share their target."""
    worths = [rule.worth(each) if rule and each.on_topic else None for each in facts]
    # Of one rule all worths are of one type.
    known: list[Any] = sorted({worth for worth in worths if worth is not None})
    return tuple(
        _target(each, worth, known, rule, neutral)
        for each, worth in zip(facts, worths, strict=True)
    )


def _target(
    facts: Facts, worth: Worth | None, known: Sequence[Any], rule: Rule | None, neutral: float
) -> float:
    if not facts.on_topic:
        return OFF_TOPIC
    if rule is None or worth is None:
        return neutral
    if isinstance(rule, ByDate | ByVersion | Then):
        if len(known) == 1:
            return neutral
        share = known.index(worth) / (len(known) - 1)
        return round(LEAST_PREFERRED + (BEST - LEAST_PREFERRED) * share, 4)
    if worth == 1.0:
        return BEST
    return EXCLUDED if rule.strict else LEAST_PREFERRED


def order(first: Facts, second: Facts, rule: Rule | None) -> int:
    """1 when `first` must stand above `second` under the rule, -1 below, 0 when it says nothing."""
    a, b = targets((first, second), rule)
    return (a > b) - (a < b)
