"""What is held out for validation. No torch."""

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

from rerank.errors import TrainingFailed

from .examples import Example, Examples, PairExample

# A text is known by the smallest hashes of its runs of five words; two texts with this share of
# them in common are near duplicates.
_RUN = 5
_SKETCH = 16
_NEAR = 0.7
# Held-out documents with a target above this must be new to the model.
_RELEVANT = 0.5


@dataclass(frozen=True)
class Split:
    """`sentences`: what a person should know of it."""

    train: Examples
    held_out: Examples
    sentences: tuple[str, ...] = ()


def split(examples: Examples, share: float, seed: int) -> Split:
    """Holds out `share` of the queries, one at least; 0: none.

    Examples of one query (letters' case and white space aside, whatever the instruction) stay
    together. What is nearly the same as a relevant document of the held-out queries (a target above
    1/2, the preferred one of a pair) is taken out of the training lists, and pairs with it are left
    out: the model must not have seen the answers it is measured on. Raises TrainingFailed when
    nothing would be left on one of the two sides.
    """
    if not share:
        return Split(examples, ())
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[_plain(example.query)].append(example)
    check_held_out(len(groups), share)
    names = sorted(groups)
    random.Random(f"split {seed}").shuffle(names)
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    held_out = [example for name in sorted(names[:count]) for example in groups[name]]
    known = _Sketches(text for example in held_out for text in _relevant(example))
    taken = {_plain(example.query) for example in held_out}
    left = [example for example in examples if _plain(example.query) not in taken]
    train = [kept for example in left if (kept := _without(example, known)) is not None]
    if not train:
        raise TrainingFailed(
            "Every query shares its relevant documents with the ones held out. Hold out fewer, or "
            "add queries with other answers."
        )
    sentences = [f"{count} of {len(names)} queries are held out for validation."]
    if len(train) < len(left):
        sentences.append(
            f"{len(left) - len(train)} examples are left out of training because their documents "
            "are nearly the same as answers to held-out queries."
        )
    return Split(cast(Examples, train), cast(Examples, held_out), tuple(sentences))


def check_held_out(queries: int, share: float) -> None:
    """Raises TrainingFailed where `share` is to be held out of so few queries that none is left to
    train on."""
    if share and queries < 2:
        raise TrainingFailed(
            "There is one query only, so none can be held out. Add queries, or hold out none."
        )


def _relevant(example: Example) -> list[str]:
    if isinstance(example, PairExample):
        return [example.a if example.preference >= 0.5 else example.b]
    return [
        text
        for text, target in zip(example.documents, example.targets, strict=True)
        if target > _RELEVANT
    ]


def _without(example: Example, known: _Sketches) -> Example | None:
    """The example without near duplicates of `known`; None where nothing can be learned then."""
    if isinstance(example, PairExample):
        return None if known.has(example.a) or known.has(example.b) else example
    kept = [place for place, text in enumerate(example.documents) if not known.has(text)]
    if len(kept) == len(example.documents):
        return example
    targets = tuple(example.targets[place] for place in kept)
    if len(set(targets)) < 2:
        return None
    priors = example.priors
    return replace(
        example,
        documents=tuple(example.documents[place] for place in kept),
        targets=targets,
        priors=None if priors is None else tuple(priors[place] for place in kept),
    )


class _Sketches:
    """Texts to be recognised, also after small changes."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._known: list[frozenset[int]] = []
        self._with: dict[int, list[int]] = defaultdict(list)
        for sketch in {sketch_of(text) for text in texts}:
            for value in sketch:
                self._with[value].append(len(self._known))
            self._known.append(sketch)

    def has(self, text: str) -> bool:
        sketch = sketch_of(text)
        near = {place for value in sketch for place in self._with.get(value, ())}
        return any(likeness(sketch, self._known[place]) >= _NEAR for place in near)


def sketch_of(text: str) -> frozenset[int]:
    """The smallest hashes of the text's runs of five words; of a shorter text, the whole."""
    words = _plain(text).split()
    runs = [words[start : start + _RUN] for start in range(max(len(words) - _RUN + 1, 1))]
    hashes = {zlib.crc32(" ".join(run).encode("utf-8", "replace")) for run in runs}
    return frozenset(sorted(hashes)[:_SKETCH])


def likeness(a: frozenset[int], b: frozenset[int]) -> float:
    """Estimated share of runs that two texts have in common, from their sketches (Broder 1997)."""
    smallest = sorted(a | b)[:_SKETCH]
    return sum(value in a and value in b for value in smallest) / len(smallest)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
