"""Rows of (query, positives, negatives) -> lists to train on, with negatives that are hard to tell.

All passages of a file are one corpus; a hybrid first stage finds each query's candidates, and some
of those that are no positive become its negatives. A miner must not be smarter than the labels:
what it finds above the positive may well be relevant too (zELO, arXiv 2509.12541), so negatives are
drawn over a wide band of ranks, and near copies of a positive are left out. Candidates are not
filtered by a model's score: the reranker would only learn that model's opinion.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank.errors import BadInput
from rerank.evaluation.first_stage import WordIndex
from rerank.inference.texts import sendable
from rerank.ranking.fusion import fuse_weighted
from rerank.reading import numbered_json_rows
from rerank.training.examples import TrainingList
from rerank.types import FloatArray

from .progress import with_bar

# Texts -> unit vectors, shape (n, dimension).
Embed = Callable[[Sequence[str]], FloatArray]

LEG_DEPTH = 200
# Of the fused order, so many count as found.
CANDIDATES = 100
# Which query of each `held_every` is held out.
_HELD = 7
# A candidate that shares so many of its word sequences with a positive is a copy of it.
COPY_SHARE = 0.3
_SHINGLE_WORDS = 6
# Negatives of one row that join the corpus.
_OWN_NEGATIVES = 3


@dataclass(frozen=True)
class Mining:
    """`passages`: a file's corpus ends at the first row beyond so many. `queries`: of a file.
    `near`, `far`: how many negatives are drawn among the best `near_band` candidates and among
    those behind them up to `far_band`. `dense_weight`: of the hybrid. One query of `held_every` is
    for validation, with its first `held_depth` candidates; 0 for none."""

    passages: int = 4000
    queries: int = 1500
    near: int = 4
    near_band: int = 12
    far: int = 3
    far_band: int = 60
    dense_weight: float = 0.7
    language: str = "en"
    held_every: int = 40
    held_depth: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """A query, the passages that answer it, and passages that do not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """`questions`: each query with the places of its positives in `texts`."""

    texts: list[str]
    questions: list[tuple[str, list[int]]]


@dataclass(frozen=True)
class Mined:
    training: list[TrainingList]
    held_out: list[TrainingList]


def read_rows(path: Path, language: str = "") -> list[Row]:
    """Rows `{"query", "positives", "negatives"?, "lang"?}` of a .jsonl[.gz] file; with `language`
    only those whose "lang" is that or missing. Raises BadInput with the line's number."""
    rows = []
    for number, record in numbered_json_rows(path, ("query", "positives")):
        if language and record.get("lang", language) != language:
            continue
        query, positives = record["query"], record["positives"]
        negatives = record.get("negatives") or []
        # A text alone would count as its letters.
        are_lists = isinstance(positives, list) and isinstance(negatives, list)
        if not are_lists or not all(isinstance(t, str) for t in [query, *positives, *negatives]):
            positives = []
        if not positives:
            raise BadInput(
                f"Line {number} of {path.name} should hold a query, a list of positives and one of "
                "negatives, all of them texts, and at least one positive."
            )
        rows.append(
            Row(
                sendable(query),
                tuple(sendable(text) for text in positives),
                tuple(sendable(text) for text in negatives),
            )
        )
    return rows


def name_of(path: Path) -> str:
    """What a file of rows is called in ids: its name without endings."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def corpus_of(rows: Sequence[Row], mining: Mining, name: str) -> Corpus:
    """Positives and natural negatives of rows shuffled by `name`; equal texts, white space aside,
    are one."""
    shuffled = list(rows)
    random.Random(name).shuffle(shuffled)
    places: dict[str, int] = {}
    texts: list[str] = []

    def place_of(text: str) -> int:
        key = " ".join(text.split())
        if key not in places:
            places[key] = len(texts)
            texts.append(text)
        return places[key]

    questions = []
    for row in shuffled:
        if len(texts) > mining.passages:
            break
        positives = sorted({place_of(text) for text in row.positives})
        for text in row.negatives[:_OWN_NEGATIVES]:
            place_of(text)
        questions.append((row.query, positives))
    return Corpus(texts, questions[: mining.queries])


def mine(
    corpus: Corpus, embed: Embed, mining: Mining, name: str, embed_queries: Embed | None = None
) -> Mined:
    """One list a query: its best-ranked positive with target 1 and its negatives with target 0, in
    first-stage order with the fused scores as priors. Queries whose positives the first stage does
    not find, or finds nothing else for, are left out. `embed_queries` None: as passages are."""
    words = WordIndex(corpus.texts, mining.language)
    vectors = embed(corpus.texts)
    asked = (embed_queries or embed)([query for query, _ in corpus.questions])
    mined = Mined([], [])
    bar = with_bar(corpus.questions, "mining", "queries", len(corpus.questions))
    for number, ((query, positives), vector) in enumerate(zip(bar, asked, strict=True)):
        fused = fused_order(words, vectors, query, vector, mining.dense_weight)
        is_held = bool(mining.held_every) and number % mining.held_every == _HELD
        if is_held:
            found = _with_positive(list(fused), positives, mining.held_depth)
        else:
            found = chosen(list(fused), positives, corpus.texts, mining, f"{name} {number}")
        if not found:
            continue
        good = set(positives)
        (mined.held_out if is_held else mined.training).append(
            TrainingList(
                f"{name}-{number}",
                query,
                "",
                tuple(corpus.texts[place] for place in found),
                tuple(float(place in good) for place in found),
                tuple(min(max(fused[place], 0.0), 1.0) for place in found),
            )
        )
    return mined


def _with_positive(order: Sequence[int], positives: Sequence[int], depth: int) -> list[int]:
    """The first `depth` candidates, and the best-ranked positive where it stands behind them; []
    where there is none."""
    good = set(positives)
    best = next((place for place in order[:CANDIDATES] if place in good), None)
    if best is None:
        return []
    first = list(order[:depth])
    return first if best in first else [*first, best]


def chosen(
    order: Sequence[int], positives: Sequence[int], texts: Sequence[str], mining: Mining, key: str
) -> list[int]:
    """The best-ranked positive and the negatives drawn for it, in the order of `order`; [] where
    there is nothing to learn."""
    good = set(positives)
    best = next((place for place in order[:CANDIDATES] if place in good), None)
    if best is None:
        return []
    shingles = set().union(*(_shingles(texts[place]) for place in positives))
    ranked = [place for place in order[: mining.far_band] if place not in good]
    ranked = [place for place in ranked if not _is_copy(texts[place], shingles)]
    chance = random.Random(f"{key} {mining.seed}")
    near, far = ranked[: mining.near_band], ranked[mining.near_band :]
    drawn = {
        *chance.sample(near, min(mining.near, len(near))),
        *chance.sample(far, min(mining.far, len(far))),
    }
    return [place for place in order if place in drawn or place == best] if drawn else []


def fused_order(
    words: WordIndex,
    vectors: FloatArray,
    query: str,
    vector: NDArray[np.float32],
    dense_weight: float,
) -> dict[int, float]:
    """Place -> fused score in [0, 1], best first: the best LEG_DEPTH by words and by meaning."""
    cosines = vectors @ vector
    nearest = np.argsort(-cosines, kind="stable")[:LEG_DEPTH]
    dense = dict(zip(nearest.tolist(), cosines[nearest].tolist(), strict=True))
    return fuse_weighted(words.search(query, LEG_DEPTH), dense, dense_weight)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + _SHINGLE_WORDS]) for at in range(len(words) - _SHINGLE_WORDS + 1)}


def _is_copy(text: str, of_positives: set[tuple[str, ...]]) -> bool:
    own = _shingles(text)
    return bool(own) and len(own & of_positives) > COPY_SHARE * len(own)
