"""What the stages hand to each other: one JSON object a line, a header line first.

The header says which stage wrote the file, with which settings, and the digests of the files it was
made from. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank.errors import BadStage
from rerank.inference.texts import sendable

Record = dict[str, Any]
CANDIDATES = "candidates"


@dataclass(frozen=True)
class Document:
    """`prior`: the first stage's score in [0, 1], where it is known."""

    id: str
    text: str
    prior: float | None = None


@dataclass(frozen=True)
class Candidates:
    """A query and the documents its first stage found, best first; `instruction` may be ""."""

    query_id: str
    query: str
    documents: tuple[Document, ...]
    instruction: str = ""

    def twins(self) -> dict[str, str]:
        """id -> id of the first document with the same text, white space aside; its own for most.
        Copies are judged once and share their score."""
        first: dict[str, str] = {}
        return {
            document.id: first.setdefault(" ".join(document.text.split()), document.id)
            for document in self.documents
        }

    def distinct(self) -> list[str]:
        """ids of documents that are nobody's copy, in order."""
        return list(dict.fromkeys(self.twins().values()))


@dataclass(frozen=True)
class Header:
    """`made_from`: name -> sha256 of each input. `settings`: what else the content depends on.
    `notes`: what a reader may want to know and nothing depends on."""

    stage: str
    made_from: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> Record:
        return {
            "stage": self.stage,
            "made_from": dict(self.made_from),
            "settings": dict(self.settings),
            "notes": dict(self.notes),
        }


@dataclass(frozen=True)
class Outcome:
    """`was_current`: nothing had to be done. `sentences`: what a person should know."""

    path: Path
    records: int
    was_current: bool = False
    sentences: tuple[str, ...] = ()


def is_current(path: Path, header: Header) -> bool:
    """Whether the file was made by the same stage, from the same inputs, with the same settings."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline())
    except (OSError, ValueError):  # writing it says what is wrong with the place
        return False
    wanted = json.loads(json.dumps(header.as_json()))
    return isinstance(found, dict) and all(
        found.get(key) == wanted[key] for key in ("stage", "made_from", "settings")
    )


def input_digest(path: Path) -> str:
    """sha256 of a file that a stage is made from. Raises BadStage when it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadStage(f"{path} is missing: run the stage that writes it first.") from error


def untouched(path: Path) -> Outcome:
    """What a stage says that had nothing to do."""
    header = read_header(path)
    records = sum(1 for _ in read_stage(path, header.stage))
    return Outcome(path, records, True, tuple(header.notes.get("sentences", ())))


def write_stage(path: Path, header: Header, records: Iterable[Record]) -> int:
    """Writes beside `path`, then replaces it at once; returns the number of records. Raises
    BadStage when it cannot be written, with the old file as it was."""
    return _write(path, itertools.chain([header.as_json()], records)) - 1


def _write(path: Path, records: Iterable[Record]) -> int:
    beside = path.with_name(path.name + ".part")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadStage(
            f"{path} cannot be written: something above it is a file, not a folder. Name another "
            "place, or move that file away."
        ) from error
    except OSError as error:
        raise BadStage(f"{path} cannot be written: {error.strerror or error}.") from error
    try:
        with beside.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(_line(record))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise BadStage(f"{path.name} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return count


def read_stage(path: Path, stage: str) -> Iterator[Record]:
    """The records after the header. Raises BadStage for a missing, broken or other stage's file."""
    header = read_header(path)
    if header.stage != stage:
        raise BadStage(f"{path} was written by the stage {header.stage}, not by {stage}.")
    lines = _lines(path)
    next(lines)
    for number, record in lines:
        if not isinstance(record.get("query_id"), str):
            raise BadStage(f"Line {number} of {path} names no query_id.")
        yield record


def read_header(path: Path) -> Header:
    """Raises BadStage."""
    for number, record in _lines(path):
        if not isinstance(record.get("stage"), str):
            raise BadStage(f"Line {number} of {path} is no header of a stage: run the stage again.")
        return Header(
            record["stage"],
            record.get("made_from", {}),
            record.get("settings", {}),
            record.get("notes", {}),
        )
    raise BadStage(f"{path} is empty: run the stage that writes it again.")


def read_candidates(path: Path) -> Iterator[Candidates]:
    """Queries with their candidates: `{"query_id", "query", "documents": [{"id", "text"}, ...]}` a
    line, `instruction` and a document's `prior` optional. A header may stand first, need not.
    Raises BadStage with the line's number."""
    seen: set[str] = set()
    for number, record in _lines(path):
        if number == 1 and record.get("stage") == CANDIDATES:
            continue
        where = f"Line {number} of {path}"
        try:
            documents = tuple(
                Document(_text(each["id"]), _whole(each["text"]), _prior(each.get("prior")))
                for each in record["documents"]
            )
            candidates = Candidates(
                _text(record["query_id"]),
                _whole(record["query"]),
                documents,
                _whole(record.get("instruction") or ""),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise BadStage(
                f"{where} is no query with candidates ({error}): it should hold query_id, query "
                "and documents with id and text."
            ) from error
        if len({document.id for document in documents}) < len(documents):
            raise BadStage(f"{where} names a document twice.")
        if candidates.query_id in seen:
            raise BadStage(f"{where} repeats the query {candidates.query_id}.")
        seen.add(candidates.query_id)
        yield candidates


def write_candidates(
    path: Path, queries: Iterable[Candidates], header: Header | None = None
) -> int:
    """The file `read_candidates` reads, whole or not at all; returns the number of queries."""
    records: Iterable[Record] = (
        {
            "query_id": each.query_id,
            "query": each.query,
            "instruction": each.instruction,
            "documents": [_document_record(document) for document in each.documents],
        }
        for each in queries
    )
    if header is not None:
        return write_stage(path, header, records)
    return _write(path, records)


def _document_record(document: Document) -> Record:
    record: Record = {"id": document.id, "text": document.text}
    return record if document.prior is None else {**record, "prior": document.prior}


def _lines(path: Path) -> Iterator[tuple[int, Record]]:
    try:
        # A file from elsewhere may begin with a mark that is no part of its text.
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(path, number, line)
    except FileNotFoundError:
        raise BadStage(f"{path} is missing: run the stage that writes it first.") from None
    except OSError as error:
        raise BadStage(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BadStage(f"{path} is not UTF-8 text.") from error


def _object(path: Path, number: int, line: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadStage(f"Line {number} of {path} is not JSON: {error}.") from error
    if not isinstance(record, dict):
        raise BadStage(f"Line {number} of {path} is no JSON object.")
    return record


def _line(record: Record) -> str:
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        # Half a character, as texts have that were cut: only its escape can be written.
        line = json.dumps(record, allow_nan=False)
    return line + "\n"


def _prior(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise TypeError(f"the prior {value!r} is no number from 0 to 1")
    return float(value)


def _whole(value: Any) -> str:
    """Without halves of characters, as texts have that were cut: no model reads them."""
    return sendable(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
