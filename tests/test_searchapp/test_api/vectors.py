"""Vectors without a model, for tests whose subject is something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerank.types import FloatArray
from tests.fakes import hashed_vector


def hashed(texts: Sequence[str], model: str) -> FloatArray:
    """An `EmbedDocuments`."""
    return np.stack([hashed_vector(text) for text in texts])
