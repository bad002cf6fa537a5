"""What docx, pptx and xlsx share: the guard before their zip is opened, and their properties."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .building import one_line
from .records import Source, Unreadable, megabytes

DAMAGED = "This {kind} file is damaged and cannot be opened."


@contextmanager
def opened(source: Source, kind: str) -> Iterator[None]:
    """For what a library reads of the file. Raises Unreadable when it is damaged, or too large to
    begin with."""
    _guard(source, kind)
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # the libraries let KeyError, ValueError, XML errors through
        raise Unreadable(DAMAGED.format(kind=kind)) from error


def _guard(source: Source, kind: str) -> None:
    """Raises Unreadable when the zip inside is damaged or would unpack beyond the limits."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Unreadable(DAMAGED.format(kind=kind)) from error
    if any(member.flag_bits & 1 for member in members):
        raise Unreadable(f"This {kind} file is protected by a password.")
    expanded = sum(member.file_size for member in members)
    if expanded > source.limits.expanded_bytes:
        raise Unreadable(
            f"This {kind} file unpacks to {megabytes(expanded)}, more than the "
            f"{megabytes(source.limits.expanded_bytes)} allowed."
        )
    if len(members) > source.limits.members:
        raise Unreadable(f"This {kind} file has too many parts ({len(members):,}).")


def properties(core: Any) -> dict[str, Any]:
    """Title, author and subject of a document's core properties, where set."""
    facts: dict[str, Any] = {}
    for key, attribute in [("title", "title"), ("author", "author"), ("subject", "subject")]:
        value = one_line(str(getattr(core, attribute, "") or ""))
        if value and value not in {"python-docx", "PowerPoint Presentation"}:
            facts[key] = value[:500]
    return facts
