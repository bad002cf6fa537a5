"""Scores kept from one request to the next: what they are called, and the socket of their store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

DIGEST_BYTES = 16


class ScoreCache(Protocol):
    """Raw values of documents, grouped by model and prompt. Never raises: what cannot be read is
    missing, what cannot be written is forgotten. Safe from any thread."""

    def get_many(self, group: bytes, documents: Sequence[bytes]) -> Sequence[float | None]:
        """The kept value of each document, None where there is none, in the order asked."""
        ...

    def put_many(self, group: bytes, values: Mapping[bytes, float]) -> None: ...


def group_key(revision: str, prompt: str) -> bytes:
    """Of everything one model says about one prompt; `revision` as on the model's card."""
    return _digest(f"{len(revision)}:{revision}{prompt}")


def document_key(text: str) -> bytes:
    return _digest(text)


def _digest(text: str) -> bytes:
    # A lone surrogate is no Unicode, yet two such texts must differ here as well.
    raw = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()
