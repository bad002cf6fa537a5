"""A synthetic collection of any size: Zipf-distributed words, clustered unit vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from searchapp.models import Collection, Document, DocumentStatus, DocumentText, Passage

WORDS = 40_000
TERMS_PER_PASSAGE = 70
PASSAGES_PER_DOCUMENT = 50
CLUSTERS = 1_000
BETWEEN = "\n\n"
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u")]


def vocabulary() -> list[str]:
    """WORDS distinct invented words, the most frequent first."""
    pairs = itertools.product(_SYLLABLES, repeat=3)
    return ["".join(syllables) for syllables in itertools.islice(pairs, 0, None, 8)][:WORDS]


def texts(count: int, random: np.random.Generator) -> list[str]:
    """Passages of about 70 words, word of rank r with probability proportional to 1 / r."""
    words = np.array(vocabulary())
    shares = 1.0 / np.arange(1, len(words) + 1)
    cumulative = np.cumsum(shares / shares.sum())
    lengths = random.integers(TERMS_PER_PASSAGE - 30, TERMS_PER_PASSAGE + 31, count)
    picks = np.searchsorted(cumulative, random.random(int(lengths.sum())))
    drawn = words[np.minimum(picks, len(words) - 1)]
    ends = np.cumsum(lengths)
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def queries(passages: Sequence[str], count: int, random: np.random.Generator) -> list[str]:
    """Four to eight words, each from one and the same passage."""
    made = []
    for at in random.integers(0, len(passages), count):
        words = passages[at].split()
        made.append(" ".join(random.choice(words, int(random.integers(4, 9)), replace=False)))
    return made


def unit_vectors(count: int, dimension: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Shape (count, dimension): points around random centres, as embeddings cluster by topic."""
    centres = random.normal(size=(CLUSTERS, dimension)).astype(np.float32)
    noise = random.normal(scale=0.7, size=(count, dimension)).astype(np.float32)
    vectors = centres[random.integers(0, CLUSTERS, count)] + noise
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def store_passages(collection: Collection, passages: Sequence[str]) -> list[int]:
    """Documents and passages as rows; the passages' ids in order."""
    starts = range(0, len(passages), PASSAGES_PER_DOCUMENT)
    documents = Document.objects.bulk_create(
        Document(
            collection=collection,
            path=f"synthetic/{number}.txt",
            title=f"Synthetic {number}",
            passage_count=PASSAGES_PER_DOCUMENT,
            status=DocumentStatus.READY,
        )
        for number in range(len(starts))
    )
    DocumentText.objects.bulk_create(
        [
            DocumentText(
                document=document,
                text=BETWEEN.join(passages[start : start + PASSAGES_PER_DOCUMENT]),
            )
            for document, start in zip(documents, starts, strict=True)
        ],
        batch_size=2000,
    )
    spans = [
        span for start in starts for span in _spans(passages[start : start + PASSAGES_PER_DOCUMENT])
    ]
    ids: list[int] = []
    for start in range(0, len(passages), 5000):
        rows = [
            Passage(
                collection=collection,
                document=documents[at // PASSAGES_PER_DOCUMENT],
                ordinal=at % PASSAGES_PER_DOCUMENT,
                text=passages[at],
                start=spans[at][0],
                end=spans[at][1],
            )
            for at in range(start, min(start + 5000, len(passages)))
        ]
        ids += [row.pk for row in Passage.objects.bulk_create(rows)]
    return ids


def _spans(passages: Sequence[str]) -> list[tuple[int, int]]:
    """Of each passage in the text they make together."""
    ends = list(itertools.accumulate(len(passage) + len(BETWEEN) for passage in passages))
    return [
        (end - len(BETWEEN) - len(passage), end - len(BETWEEN))
        for end, passage in zip(ends, passages, strict=True)
    ]
