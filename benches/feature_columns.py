"""What a query and a passage have in common, as numbers: the columns of benches.features."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rerank.inference.fused_maxsim import FusedMaxSim, latin_share
from rerank.types import FloatArray

COLUMNS = (
    "prior",  # the first stage's fused score
    "cosine",  # of the texts' vectors
    "window",  # the best cosine of a window of the passage
    "opening",  # that of its first window
    "maxsim",  # mean over the query's tokens of the best match
    "maxsim_weighted",  # the same, rare tokens counting more
    "weakest",  # the worst best match of the rarer half of the tokens
    "above_8",  # weighted share of tokens with a match above .8
    "above_7",
    "above_6",
    "back",  # mean over the passage's tokens of their best match in the query, weighted
    "bm25",  # over tokens, by weights that no collection changes
    "cover",  # weighted share of the query's tokens that occur
    "bigrams",  # share of its pairs of neighbours that occur
    "length",  # logarithm of the passage's tokens
    "query_length",
    "latin",  # share of the query's letters
)
WINDOW, STRIDE = 32, 16
K1, B, USUAL_LENGTH = 0.9, 0.4, 100.0
_AT_ONCE = 64


@dataclass(frozen=True)
class Text:
    """`ids` and unit `vectors` (tokens, hidden) without the frame, never empty; `mean` (hidden,)
    and `windows` (windows, hidden) are unit vectors, too."""

    ids: np.ndarray
    vectors: torch.Tensor
    mean: FloatArray
    windows: FloatArray


def read_texts(texts: Sequence[str], reader: FusedMaxSim) -> list[Text]:
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: dict[int, Text] = {}
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        states = reader.states([texts[place] for place in places])
        for place, (ids, state) in zip(places, states, strict=True):
            found[place] = _text(ids, state)
    return [found[place] for place in range(len(texts))]


def token_weights(texts: Sequence[str], reader: FusedMaxSim) -> FloatArray:
    """Of each token id: the logarithm of how rare it is among the texts (as BM25's), (ids,)."""
    seen = np.zeros(1 << 16, dtype=np.int64)
    for start in range(0, len(texts), 1024):
        for ids in reader.token_ids(texts[start : start + 1024]):
            seen[np.unique(ids)] += 1
    sys.stdout.write(f"weights of {np.count_nonzero(seen):,} tokens from {len(texts):,} texts\n")
    return np.log1p((len(texts) - seen + 0.5) / (seen + 0.5)).astype(np.float32)


def columns_of(
    query: str,
    question: Text,
    candidates: Sequence[Text],
    priors: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Shape (candidates, len(COLUMNS))."""
    rows = [
        [prior, *_shared(question, candidate, weights), latin_share(query)]
        for candidate, prior in zip(candidates, priors.tolist(), strict=True)
    ]
    return np.array(rows, dtype=np.float32)


def _shared(question: Text, passage: Text, weights: FloatArray) -> list[float]:
    rarity = weights[question.ids]
    share = rarity / max(float(rarity.sum()), 1e-6)
    likeness = (question.vectors @ passage.vectors.T).numpy()
    best, back = likeness.max(axis=1).clip(0), likeness.max(axis=0)
    own = weights[passage.ids]
    cosines = passage.windows @ question.mean
    rare = rarity >= np.median(rarity)
    count = len(passage.ids)
    return [
        float(passage.mean @ question.mean),
        float(cosines.max()),
        float(cosines[0]),
        float(best.mean()),
        float(share @ best),
        float(best[rare].min()),
        *(float(share @ (best > level)) for level in (0.8, 0.7, 0.6)),
        float(own @ back) / max(float(own.sum()), 1e-6),
        *_overlaps(question.ids, passage.ids, weights),
        float(np.log1p(count)),
        float(np.log1p(len(question.ids))),
    ]


def _overlaps(query: np.ndarray, passage: np.ndarray, weights: FloatArray) -> tuple[float, ...]:
    """BM25 and cover as shares of their greatest value, share of bigrams."""
    asked = np.unique(query)
    rarity = weights[asked]
    total = max(float(rarity.sum()), 1e-6)
    found = (asked[:, None] == passage[None]).sum(axis=1)
    length = 1 - B + B * len(passage) / USUAL_LENGTH
    bm25 = float(rarity @ (found / (found + K1 * length))) / total
    cover = float(rarity @ (found > 0)) / total
    pairs = set(zip(query[:-1].tolist(), query[1:].tolist(), strict=True))
    known = pairs & set(zip(passage[:-1].tolist(), passage[1:].tolist(), strict=True))
    return bm25, cover, len(known) / max(len(pairs), 1)


def _text(ids: list[int], state: torch.Tensor) -> Text:
    # Of an empty text the frame is all there is.
    inner = slice(1, -1) if len(ids) > 2 else slice(0, 1)
    words = state[inner]
    starts = range(0, max(len(words) - WINDOW, 0) + 1, STRIDE)
    windows = torch.stack([words[at : at + WINDOW].mean(dim=0) for at in starts])
    return Text(
        np.array(ids[inner]),
        _unit(words).clone(),
        _unit(state.mean(dim=0)).numpy(),
        _unit(windows).numpy(),
    )


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
