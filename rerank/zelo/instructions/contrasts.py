"""One query and its documents under several instructions, the first two of them opposite."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rerank.training.examples import TrainingList

from .rules import (
    NEUTRAL,
    ByDate,
    ByVersion,
    Facts,
    Labelled,
    Rule,
    Since,
    Then,
    Wish,
    order,
    targets,
)
from .wording import FACETS, LABELS, Wording, facet_values

# (query, documents) -> the first stage's fused scores in [0, 1], which know no instruction.
Priors = Callable[[str, Sequence[str]], Sequence[float]]
# "for" wants the contrast's first document, "against" its second; "none" is no instruction,
# "beside" one that concerns neither.
CaseName = Literal["for", "against", "none", "beside"]
CASES: tuple[CaseName, ...] = ("for", "against", "none", "beside")
# Wishes that are never trained on, so that following them shows more than learnt sentences.
UNSEEN_KINDS = ("access",)
LABEL_KINDS = tuple(name for name in LABELS if name not in UNSEEN_KINDS)
# What a document may say of itself without being asked, and what would be asked of both at once.
FAMILIES = ("date", "version", *LABEL_KINDS, *FACETS)
CLASHES = [
    {"date", "version"},
    {"source", "status"},
    {"audience", "readers"},
    {"version", "edition"},
]
FIRST_YEAR, LAST_YEAR = 2004, 2026


@dataclass(frozen=True)
class Case:
    """`targets`: of each document of the contrast, in [0, 1]."""

    name: CaseName
    instruction: str
    targets: tuple[float, ...]


@dataclass(frozen=True)
class Contrast:
    """`first` and `second`: places of two documents that both answer the query and that the
    instructions of "for" and "against" order in opposite ways. `domain`: the world or source of the
    texts. `held_wording`, `held_domain`: whether training never sees these wordings, this domain.
    `facts`: of each document, what its targets follow from."""

    id: str
    kind: str
    domain: str
    held_wording: bool
    held_domain: bool
    query: str
    documents: tuple[str, ...]
    facts: tuple[Facts, ...]
    first: int
    second: int
    cases: tuple[Case, ...]

    def case(self, name: CaseName) -> Case:
        return next(each for each in self.cases if each.name == name)

    def lists(self, priors: Priors | None = None) -> list[TrainingList]:
        """One for each case. `priors`: for bases that start from the first stage's scores."""
        first = None if priors is None else tuple(priors(self.query, self.documents))
        return [
            TrainingList(
                f"{self.id}-{case.name}",
                self.query,
                case.instruction,
                self.documents,
                case.targets,
                first,
            )
            for case in self.cases
        ]


@dataclass(frozen=True)
class Opposites:
    """A pair of rules and what makes documents differ under them: `changes` of the first, of the
    second, and of a third for variety, in `families`."""

    kind: str
    families: tuple[str, ...]
    wanted: Rule
    unwanted: Rule
    changes: tuple[Facts, Facts, Facts]


def opposites(kind: str, wording: Wording, chance: random.Random) -> Opposites:
    """Rules of `kind` that order two documents in opposite ways."""
    if kind == "recency":
        return _by_date(chance)
    if kind == "version":
        return _by_version(chance)
    if kind in LABELS:
        return _by_label(kind, chance)
    if kind == "priority":
        return _by_priority(chance)
    return _by_facet(chance.choice(FACETS), wording, chance)


def _by_date(chance: random.Random) -> Opposites:
    early, middle, late = sorted(chance.sample(range(FIRST_YEAR, LAST_YEAR), 3))
    new, old, third = Facts(date=_day(late, chance)), Facts(date=_day(early, chance)), middle
    if chance.random() < 0.35:
        # The cut lies after the early year, at the latest in the late one.
        year = chance.randint(early + 1, late)
        rules: tuple[Rule, Rule] = (Since(year, True), Since(year, False))
    else:
        rules = (ByDate(True), ByDate(False))
    return Opposites("recency", ("date",), *rules, (new, old, Facts(date=_day(third, chance))))


def _day(year: int, chance: random.Random) -> datetime.date:
    return datetime.date(year, 1, 1) + datetime.timedelta(days=chance.randrange(365))


def _by_version(chance: random.Random) -> Opposites:
    majors = sorted(chance.sample(range(1, 15), 3))
    low, middle, high = (Facts(version=(major, chance.randrange(10))) for major in majors)
    return Opposites(
        "version", ("version",), ByVersion(True), ByVersion(False), (high, low, middle)
    )


def _by_label(family: str, chance: random.Random) -> Opposites:
    one, other = LABELS[family]
    strict = chance.random() < 0.35
    first, second = Facts(labels={family: one}), Facts(labels={family: other})
    return Opposites(
        family,
        (family,),
        Labelled(family, one, strict),
        Labelled(family, other, strict),
        (first, second, chance.choice((first, second))),
    )


def _by_facet(family: str, wording: Wording, chance: random.Random) -> Opposites:
    one, other, third = chance.sample(facet_values(family, wording.held), 3)
    wanted = Labelled(family, one, strict=True)
    if chance.random() < 0.5:
        unwanted = Labelled(family, one, strict=True, excluded=True)
    else:
        unwanted = Labelled(family, other, strict=True)
    changes = tuple(Facts(labels={family: value}) for value in (one, other, third))
    return Opposites("facet", (family,), wanted, unwanted, (changes[0], changes[1], changes[2]))


def _by_priority(chance: random.Random) -> Opposites:
    """Two wishes, each document meets another one, and the first that is said decides."""
    families = chance.sample(("date", "version", *LABEL_KINDS), 2)
    while clash(families[0], families[1:]):
        families = chance.sample(("date", "version", *LABEL_KINDS), 2)
    (one, good, bad), (other, fine, poor) = (_wish(family, chance) for family in families)
    changes = merged([good, poor]), merged([bad, fine]), merged([good, fine])
    return Opposites("priority", tuple(families), Then(one, other), Then(other, one), changes)


def _wish(family: str, chance: random.Random) -> tuple[Wish, Facts, Facts]:
    """A preference, facts that meet it and facts that do not."""
    turned = chance.random() < 0.5
    if family in LABELS:
        one, other = LABELS[family][::-1] if turned else LABELS[family]
        return Labelled(family, one), Facts(labels={family: one}), Facts(labels={family: other})
    if family == "date":
        early, late = sorted(chance.sample(range(FIRST_YEAR, LAST_YEAR), 2))
        low, high = Facts(date=_day(early, chance)), Facts(date=_day(late, chance))
    else:
        small, great = sorted(chance.sample(range(1, 15), 2))
        low, high = (Facts(version=(major, chance.randrange(10))) for major in (small, great))
    rule = ByDate(not turned) if family == "date" else ByVersion(not turned)
    return (rule, low, high) if turned else (rule, high, low)


def clash(family: str, families: Sequence[str]) -> bool:
    """Whether a document that says one might be read as saying something of the other."""
    return any({family, each} in CLASHES or family == each for each in families)


def unasked(
    asked: Sequence[str], wording: Wording, chance: random.Random, most: int = 2
) -> list[str]:
    """Families that documents may speak of besides those `asked` for."""
    chosen: list[str] = []
    for family in chance.sample(FAMILIES, chance.randint(0, most)):
        if not clash(family, [*asked, *chosen]):
            chosen.append(family)
    return chosen


def drawn(family: str, wording: Wording, chance: random.Random) -> Facts:
    """A document's own value in a family nobody asked about."""
    if family == "date":
        return Facts(date=_day(chance.randint(FIRST_YEAR, LAST_YEAR - 1), chance))
    if family == "version":
        return Facts(version=(chance.randint(1, 14), chance.randrange(10)))
    values = LABELS.get(family) or facet_values(family, wording.held)
    return Facts(labels={family: chance.choice(values)})


def merged(parts: Sequence[Facts], *, on_topic: bool = True, about: str = "") -> Facts:
    """One document's facts from those of its families."""
    labels: dict[str, str] = {}
    for part in parts:
        labels.update(part.labels)
    return Facts(
        on_topic,
        next((part.date for part in parts if part.date), None),
        next((part.version for part in parts if part.version), None),
        labels,
        about,
    )


def beside(families: Sequence[str], wording: Wording, chance: random.Random) -> str:
    """An instruction that concerns none of `families`: some context, a term nobody used, or a
    preference in a family that no document speaks of."""
    free = [each for each in ("date", "version", *LABEL_KINDS) if not clash(each, families)]
    roll = chance.random()
    if roll < 0.3 or not free:
        return wording.context(chance)
    if roll < 0.5:
        return wording.idle_term(chance)
    family = chance.choice(free)
    if family == "date":
        return wording.instruction(ByDate(chance.random() < 0.5), chance)
    if family == "version":
        return wording.instruction(ByVersion(chance.random() < 0.5), chance)
    return wording.instruction(Labelled(family, chance.choice(LABELS[family])), chance)


def assemble(
    name: str,
    kind: str,
    domain: str,
    wording: Wording,
    held_domain: bool,
    query: str,
    documents: Sequence[tuple[str, Facts]],
    rules: tuple[Rule, Rule],
    besides: str,
    chance: random.Random,
    neutral: float = NEUTRAL,
) -> Contrast:
    """The contrast of the first two `documents`, which are shuffled. Raises AssertionError when the
    rules do not order them in opposite ways."""
    facts = [each for _, each in documents]
    wanted, unwanted = rules
    assert order(facts[0], facts[1], wanted) == 1, (kind, wanted, facts)
    assert order(facts[0], facts[1], unwanted) == -1, (kind, unwanted, facts)
    places = list(range(len(documents)))
    chance.shuffle(places)
    shuffled = tuple(facts[place] for place in places)
    asked: list[tuple[CaseName, str, Rule | None]] = [
        ("for", wording.instruction(wanted, chance), wanted),
        ("against", wording.instruction(unwanted, chance), unwanted),
        ("none", "", None),
        ("beside", besides, None),
    ]
    return Contrast(
        id=name,
        kind=kind,
        domain=domain,
        held_wording=wording.held,
        held_domain=held_domain,
        query=query,
        documents=tuple(documents[place][0] for place in places),
        facts=shuffled,
        first=places.index(0),
        second=places.index(1),
        cases=tuple(
            Case(case, text, targets(shuffled, rule, neutral)) for case, text, rule in asked
        ),
    )


def random_of(*parts: object) -> random.Random:
    """The same for the same parts, on every machine."""
    return random.Random("\0".join(map(str, parts)))
