"""Plain text."""

from __future__ import annotations

from collections.abc import Iterator

from .encodings import decode
from .records import ExtractedDocument, ExtractionNote, Item, Source, Unreadable


def read_plain(source: Source) -> Iterator[Item]:
    text, note = decode(source.path)
    if not text.strip():
        raise Unreadable("The file holds no text.")
    if len(text) > source.limits.text_characters:
        raise Unreadable(
            f"The text is longer than {source.limits.text_characters:,} characters. "
            "Split it into several files."
        )
    if note:
        yield ExtractionNote(note)
    yield ExtractedDocument(
        path=source.name,
        text=text,
        title=source.stem,
        media_type="text/plain",
        size_bytes=source.path.stat().st_size,
    )
