"""A document on its way from a file or a call into rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .extract.records import ExtractedDocument
from .passages import PassageSpan


@dataclass(frozen=True)
class Prepared:
    """A document ready to be written. `uid` None: a new one."""

    extracted: ExtractedDocument
    path: str
    title: str
    spans: Sequence[PassageSpan]
    metadata: Mapping[str, Any]
    uid: UUID | None = None
