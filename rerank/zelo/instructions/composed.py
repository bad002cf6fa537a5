"""Contrasts whose documents are composed here, from the worlds in worlds.toml."""

from __future__ import annotations

import functools
import random
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .contrasts import (
    Contrast,
    assemble,
    beside,
    drawn,
    merged,
    opposites,
    random_of,
    unasked,
)
from .rules import NEUTRAL, UNEXPLAINED, Facts, Labelled, Means, Rule
from .wording import FORMS, Wording

_QUERIES = (
    "how to {verb}",
    "{noun}",
    "advice on {noun}",
    "what should I know about {noun}?",
    "the right way of {noun}",
    "how do I {verb}?",
    "{noun}: what to do",
)
# A third document that answers the query stands in so many contrasts.
_THIRD = 0.3
# Documents of one contrast have the same body, so that only the metadata tells them apart.
_SAME_BODY = 0.5


@dataclass(frozen=True)
class Task:
    """`verb`, `noun`: what is done, {} for the object. `means`: what that is. `lines`: sentences
    that hold for every object of the domain."""

    verb: str
    noun: str
    means: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    name: str
    held_out: bool
    objects: tuple[str, ...]
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class _Topic:
    task: Task
    thing: str

    def verb(self, name: str = "") -> str:
        return _filled(self.task.verb, name or self.thing)

    def noun(self, name: str = "") -> str:
        return _filled(self.task.noun, name or self.thing)

    def lines(self) -> list[str]:
        bare = _bare(self.thing)
        told = (line.format(object=bare, a_object=self.thing) for line in self.task.lines)
        return [line[:1].upper() + line[1:] for line in told]


@functools.cache
def domains(held_out: bool) -> tuple[Domain, ...]:
    """Those of training, or those kept for measuring."""
    text = (Path(__file__).parent / "worlds.toml").read_text(encoding="utf-8")
    every = [
        Domain(
            each["name"],
            each.get("held_out", False),
            tuple(each["objects"]),
            tuple(
                Task(task["verb"], task["noun"], task["means"], tuple(task["lines"]))
                for task in each["task"]
            ),
        )
        for each in tomllib.loads(text)["domain"]
    ]
    return tuple(each for each in every if each.held_out == held_out)


def composed(name: str, kind: str, *, held_wording: bool, held_domain: bool, seed: int) -> Contrast:
    """The contrast called `name`, the same for the same arguments."""
    chance = random_of("composed", seed, name, kind, held_wording, held_domain)
    wording = Wording(held_wording)
    domain = chance.choice(domains(held_domain))
    if kind == "term":
        return _of_terms(name, domain, wording, chance)
    topic = _Topic(chance.choice(domain.tasks), chance.choice(domain.objects))
    if kind == "form":
        return _of_forms(name, domain, topic, wording, chance)
    pair = opposites(kind, wording, chance)
    families = [*pair.families, *unasked(pair.families, wording, chance)]
    changes = list(pair.changes[: 2 + (chance.random() < _THIRD)])
    topics = [topic] * len(changes) + _others(domain, topic, chance)
    # Who does not answer the query has what is asked for all the same.
    changes += [pair.changes[at % 2] for at in range(len(topics) - len(changes))]
    body = chance.sample(range(4), chance.randint(2, 3)) if chance.random() < _SAME_BODY else []
    documents = []
    for of, change in zip(topics, changes, strict=True):
        extra = [drawn(family, wording, chance) for family in families[len(pair.families) :]]
        facts = merged([change, *extra], on_topic=of is topic, about=of.thing)
        documents.append((_document(of, facts, families, wording, chance, body), facts))
    query = chance.choice(_QUERIES).format(verb=topic.verb(), noun=topic.noun())
    rules = (pair.wanted, pair.unwanted)
    return assemble(
        name,
        pair.kind,
        domain.name,
        wording,
        held_domain,
        query,
        documents,
        rules,
        beside(families, wording, chance),
        chance,
    )


def _of_terms(name: str, domain: Domain, wording: Wording, chance: random.Random) -> Contrast:
    """The query says a term; each instruction says that it means another object."""
    task, other_task = chance.sample(domain.tasks, 2)
    one, other = chance.sample(domain.objects, 2)
    term = wording.term(chance)
    families = unasked([], wording, chance)
    topics = [_Topic(task, one), _Topic(task, other)]
    topics += [_Topic(other_task, one), _Topic(other_task, other)]
    documents = []
    for at, topic in enumerate(topics):
        extra = [drawn(family, wording, chance) for family in families]
        facts = merged(extra, on_topic=at < 2, about=_bare(topic.thing))
        documents.append((_document(topic, facts, families, wording, chance), facts))
    query = chance.choice(_QUERIES).format(
        verb=topics[0].verb(f"the {term}"), noun=topics[0].noun(chance.choice(("the ", "")) + term)
    )
    rules: tuple[Rule, Rule] = (Means(term, _bare(one)), Means(term, _bare(other)))
    return assemble(
        name,
        "term",
        domain.name,
        wording,
        domain.held_out,
        query,
        documents,
        rules,
        beside(families, wording, chance),
        chance,
        UNEXPLAINED,
    )


def _of_forms(
    name: str, domain: Domain, topic: _Topic, wording: Wording, chance: random.Random
) -> Contrast:
    """The same content in two forms."""
    one, other = chance.sample(FORMS, 2)
    families = unasked([], wording, chance, most=1)
    topics = [topic, topic, *_others(domain, topic, chance)]
    documents = []
    for at, of in enumerate(topics):
        extra = [drawn(family, wording, chance) for family in families]
        form = Facts(labels={"form": (one, other)[at % 2]})
        facts = merged([form, *extra], on_topic=at < 2, about=of.thing)
        documents.append((_document(of, facts, families, wording, chance), facts))
    query = chance.choice(_QUERIES).format(verb=topic.verb(), noun=topic.noun())
    named = chance.random() < 0.6
    rules: tuple[Rule, Rule] = (
        Labelled("form", one, instead_of=other if named else ""),
        Labelled("form", other, instead_of=one if named else ""),
    )
    return assemble(
        name,
        "form",
        domain.name,
        wording,
        domain.held_out,
        query,
        documents,
        rules,
        beside(families, wording, chance),
        chance,
        NEUTRAL,
    )


def _others(domain: Domain, topic: _Topic, chance: random.Random) -> list[_Topic]:
    """Topics beside the query: the same object with another task, the same task with another
    object."""
    tasks = [task for task in domain.tasks if task is not topic.task]
    things = [thing for thing in domain.objects if thing != topic.thing]
    return [
        replace(topic, task=chance.choice(tasks)),
        replace(topic, thing=chance.choice(things)),
    ]


def _document(
    topic: _Topic,
    facts: Facts,
    families: Sequence[str],
    wording: Wording,
    chance: random.Random,
    body: Sequence[int] = (),
) -> str:
    """A document with these facts; `body`: which of the task's lines, () for any."""
    lines = topic.lines()
    places = list(body) or chance.sample(range(len(lines)), chance.randint(2, 3))
    title = topic.noun()
    title = title[:1].upper() + title[1:]
    told = _shaped(facts.labels.get("form", "prose"), topic, title, [lines[at] for at in places])
    marks = wording.marks(facts, families, chance)
    chance.shuffle(marks)
    has_title = chance.random() < 0.6 or "form" in facts.labels
    return placed(marks, f"{title}\n{told}" if has_title else told, chance)


def placed(marks: Sequence[str], text: str, chance: random.Random) -> str:
    """Metadata before a text, after it, or on both sides."""
    cut = chance.choice((0, len(marks), chance.randint(0, len(marks))))
    before, after = " ".join(marks[:cut]), " ".join(marks[cut:])
    joint = chance.choice(("\n", "\n", " "))
    return joint.join(part for part in (before, text, after) if part)


def _shaped(form: str, topic: _Topic, title: str, lines: Sequence[str]) -> str:
    if form == "definition":
        return f"{title} means {topic.task.means}."
    if form == "code":
        name = "_".join(topic.verb().replace("-", " ").split())
        body = "".join(f"    # {line}\n    step_{at}()\n" for at, line in enumerate(lines, start=1))
        return f"def {name}():\n{body}".rstrip()
    if form == "dialogue":
        return f"Q: How do I {topic.verb()}?\nA: {' '.join(lines)}"
    return SHAPES[form](lines)


# Forms that any sentences can be given.
SHAPES: dict[str, Callable[[Sequence[str]], str]] = {
    "prose": lambda lines: " ".join(lines),
    "steps": lambda lines: "\n".join(f"{at}. {line}" for at, line in enumerate(lines, start=1)),
    "table": lambda lines: "\n".join(
        ["| No. | What to do |", "|---|---|"]
        + [f"| {at} | {line} |" for at, line in enumerate(lines, start=1)]
    ),
}


def _filled(pattern: str, name: str) -> str:
    return pattern.format(name) if "{}" in pattern else f"{pattern} {name}"


def _bare(thing: str) -> str:
    """Without its article."""
    return thing.split(" ", 1)[1]
