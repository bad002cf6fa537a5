"""Requests of the rerank bench: a query, 100 candidates of mixed lengths, and their grades."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# With query and special tokens these words come to about 20 to 300 tokens.
WORDS = (8, 165)
RELEVANT = 8


@dataclass(frozen=True)
class Asked:
    """`grades`: one per document, 0 for what does not belong to the query."""

    query: str
    documents: Sequence[str]
    grades: Sequence[int]


def from_topics(count: int, candidates: int, seed: int) -> list[Asked]:
    """Python's own manual: a topic's first sentence asks for the other pieces of that topic."""
    from pydoc_data.topics import topics

    chance = random.Random(seed)
    texts = {name: _plain(text) for name, text in topics.items()}
    long = {name: text.split() for name, text in texts.items() if len(text.split()) > 600}
    names = sorted(long)

    def piece(name: str) -> str:
        words = long[name]
        length = chance.randint(*WORDS)
        start = chance.randint(20, len(words) - length)
        return " ".join(words[start : start + length])

    asked = []
    for name in (chance.choice(names) for _ in range(count)):
        others = [chance.choice([n for n in names if n != name]) for _ in range(candidates)]
        owners = [name] * RELEVANT + others[: candidates - RELEVANT]
        chance.shuffle(owners)
        grades = [int(owner == name) for owner in owners]
        query = " ".join(long[name][: chance.randint(5, 14)])
        asked.append(Asked(query, [piece(owner) for owner in owners], grades))
    return asked


def from_folder(folder: Path, count: int, candidates: int, seed: int) -> list[Asked]:
    """A judged collection in BEIR's format: a query's relevant documents among others, each cut at
    a length drawn for it. Raises BadInput."""
    from rerank.evaluation.beir import read_corpus, read_folder

    chance = random.Random(seed)
    judged, corpus = read_folder(folder), read_corpus(read_folder(folder).corpus)
    ids = sorted(corpus)
    asked = []
    for query in chance.choices(sorted(judged.queries), k=count):
        grades = {d: g for d, g in judged.qrels[query].items() if g > 0 and d in corpus}
        own = chance.sample(sorted(grades), min(len(grades), candidates // 3))
        others = [d for d in chance.sample(ids, min(len(ids), 2 * candidates)) if d not in grades]
        documents = [*own, *others[: candidates - len(own)]]
        chance.shuffle(documents)
        texts = [" ".join(corpus[d].split()[: chance.randint(*WORDS)]) for d in documents]
        asked.append(Asked(judged.queries[query], texts, [grades.get(d, 0) for d in documents]))
    return asked


def _plain(text: str) -> str:
    return re.sub(r"[*=\-~^`|+]{2,}", " ", text)
