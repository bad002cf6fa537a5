"""A record of a table or a JSON file to a document: which fields are text, which are metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .encodings import clean
from .records import ExtractedDocument, ExtractionNote, Metadata, Unreadable

TEXT_FIELDS = ("text", "body", "content", "contents", "passage", "document", "abstract")
TITLE_FIELDS = ("title", "headline", "heading", "subject", "name")
ID_FIELDS = ("_id", "id", "doc_id", "docid", "document_id", "pid", "uid")
# Longer values are text to be found, not labels to filter by.
_MAX_VALUE = 200
_MAX_KEYS = 50


class RowReader:
    """Turns the records of one file into documents and counts what it had to leave out.

    The first record with an id counts; later ones with the same id are reported and skipped.
    """

    def __init__(self, name: str, media_type: str, unit: str, text_characters: int) -> None:
        self._name = name
        self._media_type = media_type
        self._unit = unit  # "line" or "row"
        self._limit = text_characters
        self._seen: set[str] = set()
        self._left_out: dict[str, list[int]] = {}
        self.made = 0

    def leave_out(self, reason: str, number: int) -> None:
        """`reason` completes "3 lines …": "are not JSON objects"."""
        self._left_out.setdefault(reason, []).append(number)

    def read(self, record: Mapping[str, Any], number: int) -> ExtractedDocument | None:
        """The document of record `number` (counted from 1), or None when it was left out."""
        fields = {clean(str(key)).strip(): value for key, value in record.items()}
        by_name = {key.lower(): key for key in reversed(fields)}
        identity = _take(fields, by_name, ID_FIELDS)
        title = _take(fields, by_name, TITLE_FIELDS)
        text = _take(fields, by_name, TEXT_FIELDS)
        metadata, rest = split_fields(fields)
        if not text:
            rest = [f"{key}: {shown(value)}" for key, value in metadata.items()] + rest
            text = "\n".join(rest)
        elif rest:
            text = "\n\n".join([text, *rest])
        text = text or title
        if not text.strip():
            self.leave_out("hold no text", number)
            return None
        if len(text) > self._limit:
            self.leave_out(f"are longer than {self._limit:,} characters", number)
            return None
        key = identity or str(number)
        if key in self._seen:
            self.leave_out("repeat an id that came before", number)
            return None
        self._seen.add(key)
        if identity:
            metadata["id"] = identity[:_MAX_VALUE]
        self.made += 1
        return ExtractedDocument(
            path=f"{self._name}#{key[:300]}",
            text=text,
            title=" ".join(title.split())[:500],
            metadata=metadata,
            media_type=self._media_type,
            size_bytes=len(text.encode("utf-8", errors="replace")),
        )

    def close(self) -> Iterator[ExtractionNote]:
        """What was left out, one note per reason. Raises Unreadable when nothing was made."""
        notes = [self._sentence(reason, numbers) for reason, numbers in self._left_out.items()]
        if not self.made:
            raise Unreadable(" ".join(notes) or "The file holds no records.")
        for note in notes:
            yield ExtractionNote(note)

    def _sentence(self, reason: str, numbers: list[int]) -> str:
        if len(numbers) == 1:
            singular = reason.replace("are not", "is not").replace("hold ", "holds ")
            singular = singular.replace("repeat ", "repeats ").replace("are longer", "is longer")
            singular = singular.replace("JSON objects", "a JSON object").replace("have ", "has ")
            return f"{self._unit.capitalize()} {numbers[0]:,} {singular}; it was left out."
        return (
            f"{len(numbers):,} {self._unit}s {reason} (the first: {numbers[0]:,}); "
            "they were left out."
        )


def split_fields(fields: Mapping[str, Any]) -> tuple[Metadata, list[str]]:
    """(short values to filter by, "name: value" texts of the long ones)."""
    metadata: Metadata = {}
    long: list[str] = []
    for key, value in _flat(fields):
        if isinstance(value, list):
            values = [_scalar(part) for part in value]
            kept = [part[:_MAX_VALUE] for part in values if part]
            if kept and len(metadata) < _MAX_KEYS:
                metadata[key] = kept[:100]
        else:
            text = _scalar(value)
            if text and len(text) <= _MAX_VALUE and len(metadata) < _MAX_KEYS:
                metadata[key] = text
            elif text:
                long.append(f"{key}: {text}")
    return metadata, long


def _flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested objects one level down; `metadata: {...}` gives its own keys."""
    for key, value in fields.items():
        if isinstance(value, dict):
            prefix = "" if key.lower() in {"metadata", "meta"} else f"{key}."
            for inner, part in value.items():
                yield clean(f"{prefix}{inner}")[:100], part
        else:
            yield key[:100], value


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return ""
    return clean(str(value)).strip()


def shown(value: Any) -> str:
    """A value of the metadata as a text."""
    return ", ".join(value) if isinstance(value, list) else str(value)


def _take(fields: dict[str, Any], by_name: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first filled field of `names`, removed from `fields`; "" when none is."""
    for name in names:
        key = by_name.get(name)
        if key is not None and key in fields:
            value = fields[key]
            if isinstance(value, list) and all(isinstance(part, str) for part in value):
                value = "\n".join(value)
            text = _scalar(value)
            if text:
                del fields[key]
                return text
    return ""
