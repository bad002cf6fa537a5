"""The texts the gate asks about: judged ones of our own making, and generated ones."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import BadInput
from rerank.ranking.analysis import query_terms, terms
from rerank.reading import json_rows, numbered_json_rows

_FOLDER = Path(__file__).parent
# Each query of the built-in set is asked with its own passages, so many of the other queries', and
# so many generated ones: enough that one pair in another order is not a per cent.
OTHERS = 16
GENERATED = 4
LONGEST_GENERATED_WORDS = 200
_SEED = 20


@dataclass(frozen=True)
class Probe:
    """`grades`: one per document, 0 for irrelevant, or None where nobody judged."""

    query: str
    documents: tuple[str, ...]
    grades: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Preference:
    """Two passages of a query, and for each an instruction that prefers it to the other."""

    query: str
    first: str
    second: str
    for_first: str
    for_second: str


def built_in_probes() -> tuple[Probe, ...]:
    """Each query with its own judged passages first; the others count as grade 0."""
    judged = read_probes(_FOLDER / "probes.jsonl")
    every = [text for probe in judged for text in probe.documents]
    made = generated_texts(GENERATED * len(judged))
    chance = random.Random(_SEED)
    wide = []
    for place, probe in enumerate(judged):
        others = chance.sample([text for text in every if text not in probe.documents], OTHERS)
        added = [*others, *made[place * GENERATED : (place + 1) * GENERATED]]
        grades = [*(probe.grades or ()), *([0] * len(added))]
        wide.append(Probe(probe.query, (*probe.documents, *added), tuple(grades)))
    return tuple(wide)


def generated_texts(count: int, seed: int = _SEED) -> list[str]:
    """Words of the built-in passages in random order, from one to LONGEST_GENERATED_WORDS of them;
    the same for the same seed."""
    chance = random.Random(seed)
    words = [
        word
        for probe in read_probes(_FOLDER / "probes.jsonl")
        for text in probe.documents
        for word in text.split()
    ]
    return [
        " ".join(chance.choices(words, k=round(LONGEST_GENERATED_WORDS ** chance.random())))
        for _ in range(count)
    ]


def preferences() -> tuple[Preference, ...]:
    return tuple(Preference(**row) for row in json_rows(_FOLDER / "preferences.jsonl"))


def read_probes(path: Path) -> tuple[Probe, ...]:
    """Lines {"query": text, "documents": [texts], "grades": [whole numbers, optional]}.

    Raises BadInput with the number of the line."""
    probes = []
    for number, row in numbered_json_rows(path):
        try:
            probes.append(_probe(row))
        except ValueError as error:
            raise BadInput(f"Line {number} of {path} {error}.") from error
    if not probes:
        raise BadInput(f"{path} holds no pairs. Write one JSON object a line, as in the help.")
    return tuple(probes)


def prior_scores(query: str, documents: Sequence[str]) -> list[float]:
    """What a first stage might have said: the share of the query's terms in each, in [0, 1]."""
    asked = set(query_terms(query, "en"))
    return [len(asked & set(terms(text, "en"))) / max(len(asked), 1) for text in documents]


def _probe(row: Mapping[str, Any]) -> Probe:
    query, documents, grades = row.get("query"), row.get("documents"), row.get("grades")
    if not isinstance(query, str):
        raise ValueError("has no query")
    if not isinstance(documents, list) or not all(isinstance(text, str) for text in documents):
        raise ValueError("has no list of documents")
    if not documents:
        raise ValueError("has an empty list of documents")
    if grades is None:
        return Probe(query, tuple(documents))
    if not isinstance(grades, list) or not all(isinstance(grade, int) for grade in grades):
        raise ValueError("has grades that are no whole numbers")
    if len(grades) != len(documents):
        raise ValueError(f"has {len(grades)} grades for {len(documents)} documents")
    return Probe(query, tuple(documents), tuple(grades))
