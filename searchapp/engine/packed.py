"""Many vectors in one reply: the bytes of their float32 numbers, a third of what digits take."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from searchapp.engine.sockets import VectorsOutcome


def packed(outcome: VectorsOutcome) -> dict[str, Any]:
    """The outcome as JSON; `unpacked` is the inverse."""
    facts = {"reason": outcome.reason, "code": outcome.code, "elapsed_ms": outcome.elapsed_ms}
    if outcome.vectors is None:
        return {**facts, "vectors": None}
    raw = np.ascontiguousarray(outcome.vectors, "<f4").tobytes()
    return {
        **facts,
        "vectors": base64.b64encode(raw).decode(),
        "shape": [int(size) for size in outcome.vectors.shape],
    }


def unpacked(answer: dict[str, Any]) -> VectorsOutcome:
    vectors = None
    if answer["vectors"] is not None:
        raw = base64.b64decode(answer["vectors"])
        vectors = np.frombuffer(raw, "<f4").reshape(answer["shape"]).astype(np.float32)
    return VectorsOutcome(
        vectors, str(answer["reason"]), answer["code"], float(answer["elapsed_ms"])
    )
