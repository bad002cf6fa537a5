"""What judged collections hold, so that no training row repeats what is measured on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank.errors import BadInput
from rerank.evaluation.beir import corpus_file, read_corpus, read_qrels, read_queries
from rerank.reading import json_rows

_SHINGLE_WORDS = 13
# A positive with so many of its shingles in a judged document is taken from it.
_SHARE = 0.3


@dataclass(frozen=True)
class Judged:
    """Normalised queries and documents of judged folders. `shingles`: sorted hashes of the runs of
    13 words of their relevant documents; of this process only."""

    queries: frozenset[str]
    documents: frozenset[str]
    shingles: NDArray[np.int64]

    def overlap(self, query: str, positive: str) -> str:
        """Why a row may not be trained on; "" when it may."""
        if normalised(query) in self.queries:
            return "judged query"
        if self.holds(positive):
            return "judged document"
        own = np.array(sorted(_hashes(positive)), dtype=np.int64)
        if len(own) and len(self.shingles):
            places = np.searchsorted(self.shingles, own).clip(max=len(self.shingles) - 1)
            if float(np.mean(self.shingles[places] == own)) >= _SHARE:
                return "judged passage"
        return ""

    def holds(self, text: str) -> bool:
        """Whether a text is one of the documents."""
        return normalised(text) in self.documents


NONE_JUDGED = Judged(frozenset(), frozenset(), np.zeros(0, dtype=np.int64))


def read_judged(folder: Path) -> Judged:
    """Of a BEIR folder with all its splits, or of all BEIR folders in a folder. Raises BadInput."""
    queries: set[str] = set()
    documents: set[str] = set()
    found: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for each in _folders(folder):
        queries |= {normalised(text) for text in read_queries(each).values()}
        corpus = read_corpus(corpus_file(each))
        documents |= {normalised(text) for text in corpus.values()}
        # A passage may have been taken without its title.
        texts = (str(row["text"] or "") for row in json_rows(corpus_file(each), ("text",)))
        documents |= {normalised(text) for text in texts}
        for split in sorted((each / "qrels").glob("*.tsv")):
            gold = {
                document
                for grades in read_qrels(split).values()
                for document, grade in grades.items()
                if grade > 0
            }
            found.append(_all_hashes(corpus[each] for each in sorted(gold) if each in corpus))
    return Judged(
        frozenset(queries - {""}), frozenset(documents - {""}), np.unique(np.concatenate(found))
    )


def _folders(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder} to avoid.")
    names = ("corpus.jsonl", "corpus.jsonl.gz")
    places = [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]
    found = [each for each in places if any((each / name).is_file() for name in names)]
    if not found:
        raise BadInput(
            f"{folder} holds no judged collection to avoid: give a BEIR folder, which has a "
            "corpus.jsonl, or a folder of such folders."
        )
    return found


def normalised(text: str) -> str:
    """Its words in lower case."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _hashes(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    runs = range(len(words) - _SHINGLE_WORDS + 1)
    return {hash(tuple(words[at : at + _SHINGLE_WORDS])) for at in runs}


def _all_hashes(texts: Iterable[str]) -> NDArray[np.int64]:
    arrays = [np.fromiter(_hashes(text), dtype=np.int64) for text in texts]
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *arrays]))
