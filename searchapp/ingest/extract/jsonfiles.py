"""JSON and JSON lines (BEIR's corpus.jsonl among them): each object becomes a document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .encodings import clean, detect
from .records import ExtractionNote, Item, Source, Unreadable
from .rows import RowReader

_NOT_OBJECT = "are not JSON objects"


def read_json_lines(source: Source) -> Iterator[Item]:
    encoding, note = detect(source.path)
    if note:
        yield ExtractionNote(note)
    reader = RowReader(source.name, "application/jsonl", "line", source.limits.text_characters)
    with source.path.open(encoding=encoding, errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            document = _read_line(reader, line, number)
            if document is not None:
                yield document
    yield from reader.close()


def _read_line(reader: RowReader, line: str, number: int) -> Item | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        reader.leave_out(_NOT_OBJECT, number)
        return None
    if not isinstance(record, dict):
        reader.leave_out(_NOT_OBJECT, number)
        return None
    return reader.read(record, number)


def read_json(source: Source) -> Iterator[Item]:
    encoding, note = detect(source.path)
    text = source.path.read_bytes().decode(encoding, errors="replace")
    try:
        data = json.loads(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise Unreadable("This JSON is nested too deeply to be read.") from error
    except ValueError as error:
        if _looks_like_lines(text):
            yield ExtractionNote("This is one JSON object per line; it was read as JSON lines.")
            yield from read_json_lines(source)
            return
        raise Unreadable(_not_valid(error)) from error
    if note:
        yield ExtractionNote(note)
    reader = RowReader(source.name, "application/json", "record", source.limits.text_characters)
    for number, record in enumerate(_records(data), start=1):
        if isinstance(record, str):
            record = {"text": clean(record)}
        if not isinstance(record, dict):
            reader.leave_out(_NOT_OBJECT, number)
            continue
        document = reader.read(record, number)
        if document is not None:
            yield document
    yield from reader.close()


def _not_valid(error: ValueError) -> str:
    if not isinstance(error, json.JSONDecodeError):  # a whole number of thousands of digits
        return "This is not valid JSON: it holds a number too long to be read."
    is_open = error.msg.startswith("Unterminated string")
    if is_open or not error.doc[error.pos :].strip():
        part = "its last text begins" if is_open else "it breaks off"
        return (
            f"This is not valid JSON: {part} at {_place(error)}"
            f"{' and has no end' if is_open else ''}. Part of the file may be missing: export or "
            "copy it again."
        )
    return (
        f"This is not valid JSON: it cannot be read from {_place(error)} on. Correct it there, or "
        "export it again."
    )


def _place(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno:,}, column {error.colno:,}"


def _looks_like_lines(text: str) -> bool:
    lines = [line for line in text.lstrip().split("\n", 20)[:20] if line.strip()]
    return len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines[:2])


def _records(data: Any) -> Sequence[Any]:
    """The list itself, or the one list of objects inside an object, else the object alone."""
    if isinstance(data, list):
        return data
    if isinstance(data, dict):
        lists = [
            value
            for value in data.values()
            if isinstance(value, list) and value and all(isinstance(x, dict) for x in value)
        ]
        if len(lists) == 1 and not any(key in data for key in ("text", "body", "content")):
            found: list[Any] = lists[0]
            return found
        return [data]
    raise Unreadable("This JSON holds no objects, so there is nothing to search.")
