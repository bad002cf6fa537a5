"""The built-in embedder, as the benches of the built-in reranker use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerank.inference.fused_maxsim import FusedMaxSim
from rerank.types import FloatArray
from rerank.zelo.progress import with_bar

_AT_ONCE = 64


def mean_vectors(texts: Sequence[str], reader: FusedMaxSim) -> FloatArray:
    """The untrained encoder as an embedder: unit vectors of its tokens' mean, (n, hidden)."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: list[FloatArray] = [np.zeros(0, dtype=np.float32)] * len(texts)
    starts = range(0, len(order), _AT_ONCE)
    for start in with_bar(starts, "embedding", "batches", len(starts)):
        places = order[start : start + _AT_ONCE]
        for place, mean in zip(places, reader.means([texts[p] for p in places]), strict=True):
            found[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return np.stack(found)
