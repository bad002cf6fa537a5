"""Rules and facts as sentences. What is held out for measuring is never said in training."""

from __future__ import annotations

import calendar
import functools
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rules import ByDate, ByVersion, Facts, Labelled, Means, Rule, Since, Then

# Family -> its two values; a preference for the one is one against the other.
LABELS: Mapping[str, tuple[str, str]] = {
    "source": ("official", "community"),
    "audience": ("beginner", "expert"),
    "status": ("approved", "draft"),
    "access": ("free", "paid"),
}
# Families with many values, of which an instruction wants one or excludes one.
FACETS = ("region", "edition", "readers")
FORMS = ("prose", "steps", "table", "code", "definition", "dialogue")
# Labels of passages that were given: their own sentences name the value.
GIVEN = ("language", "product")

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
# What words of training and of measuring are made of, so that no term is in both.
_TERM_LETTERS = {False: "BCFGHJKLMNPQ", True: "DRSTVWXZ"}


@functools.cache
def phrasings() -> Mapping[str, Any]:
    return tomllib.loads((Path(__file__).parent / "phrasings.toml").read_text(encoding="utf-8"))


def facet_values(family: str, held: bool) -> Sequence[str]:
    values: Sequence[str] = phrasings()["facet"][family]["values"]["held" if held else "train"]
    return values


@dataclass(frozen=True)
class Wording:
    """`held`: speaks only in wordings kept for measuring, else only in those of training."""

    held: bool

    def instruction(self, rule: Rule, chance: random.Random) -> str:
        """A sentence that asks for the rule, often with some context around it."""
        return self._around(_capital(self._core(rule, chance)), chance)

    def context(self, chance: random.Random) -> str:
        """An instruction that asks for nothing."""
        before = self._pick(phrasings()["around"]["before"], chance)
        after = self._pick(phrasings()["around"]["after"], chance)
        return chance.choice((before, f"{before} {after}"))

    def idle_term(self, chance: random.Random) -> str:
        """Explains a term by a meaning that no world has."""
        return self._around(self._idle_meaning(chance), chance)

    def _idle_meaning(self, chance: random.Random) -> str:
        meaning = chance.choice(("the board of directors", "the summer party", "our head office"))
        return _capital(self._core(Means(self.term(chance), meaning), chance))

    def term(self, chance: random.Random) -> str:
        """An abbreviation or a made-up word."""
        letters = _TERM_LETTERS[self.held]
        if chance.random() < 0.5:
            return "".join(chance.choices(letters, k=chance.randint(3, 4)))
        middle = "".join(
            chance.choice(_VOWELS) + chance.choice(_CONSONANTS) for _ in range(chance.randint(1, 2))
        )
        return chance.choice(letters) + middle + chance.choice(("o", "ix", "us", "ara", "el"))

    def marks(self, facts: Facts, families: Sequence[str], chance: random.Random) -> list[str]:
        """A line of metadata for each of `families`, but not for "form" and what facts lack."""
        lines = []
        for family in families:
            if family == "date" and facts.date:
                lines.append(self._date(facts, chance))
            elif family == "version" and facts.version:
                version = f"{facts.version[0]}.{facts.version[1]}"
                told = self._pick(phrasings()["versions"], chance)
                lines.append(told.format(version=version))
            elif family in facts.labels and family != "form":
                lines.append(self._mark(family, facts.labels[family], chance))
        return lines

    def _date(self, facts: Facts, chance: random.Random) -> str:
        date = facts.date
        assert date is not None
        return self._pick(phrasings()["dates"], chance).format(
            day=date.day,
            month=calendar.month_name[date.month],
            mm=f"{date.month:02}",
            year=date.year,
            iso=date.isoformat(),
        )

    def _mark(self, family: str, value: str, chance: random.Random) -> str:
        known = phrasings()
        if family in LABELS:
            return self._pick(known["label"][family][value]["marks"], chance)
        told = known[family]["marks"] if family in GIVEN else known["facet"][family]["marks"]
        return self._pick(told, chance).format(value=value)

    def _core(self, rule: Rule, chance: random.Random) -> str:
        known = phrasings()
        if isinstance(rule, Then):
            parts = [_capital(self._core(each, chance)) for each in (rule.first, rule.second)]
            return self._pick(known["order"]["then"], chance).format(*parts)
        if isinstance(rule, Means):
            told = self._pick(known["terms"]["means"], chance)
            return told.format(term=rule.term, meaning=rule.meaning)
        if isinstance(rule, Since):
            told = self._pick(known["order"]["since" if rule.after else "before"], chance)
            return told.format(year=rule.year, last=rule.year - 1)
        if isinstance(rule, ByDate):
            return self._pick(known["order"]["newest" if rule.newest else "oldest"], chance)
        if isinstance(rule, ByVersion):
            key = "version_newest" if rule.newest else "version_oldest"
            return self._pick(known["order"][key], chance)
        return self._labelled(rule, chance)

    def _labelled(self, rule: Labelled, chance: random.Random) -> str:
        known = phrasings()
        if rule.family in LABELS:
            told = known["label"][rule.family][rule.value]["only" if rule.strict else "prefer"]
            return self._pick(told, chance)
        if rule.family == "form":
            wanted = self._pick(known["form"][rule.value]["names"], chance)
            if not rule.instead_of:
                return self._pick(known["forms"]["want"], chance).format(wanted=wanted)
            other = self._pick(known["form"][rule.instead_of]["names"], chance)
            return self._pick(known["forms"]["prefer"], chance).format(wanted=wanted, other=other)
        part = known["language"] if rule.family == "language" else known["facets"]
        told = self._pick(part["nothing" if rule.excluded else "only"], chance)
        return told.format(value=rule.value)

    def _around(self, core: str, chance: random.Random) -> str:
        known = phrasings()["around"]
        before = [self._pick(known["before"], chance)] if chance.random() < 0.2 else []
        if chance.random() < 0.12:
            # The glossary of a collection explains more than one query uses.
            before.append(self._idle_meaning(chance))
        after = [self._pick(known["after"], chance)] if chance.random() < 0.2 else []
        return " ".join([*before, core, *after])

    def _pick(self, told: Mapping[str, Sequence[str]], chance: random.Random) -> str:
        return chance.choice(told["held" if self.held else "train"])


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
