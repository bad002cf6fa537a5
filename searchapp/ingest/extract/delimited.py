"""CSV and TSV: each row becomes a document of its own."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from .encodings import detect
from .records import ExtractionNote, Item, Source, Unreadable
from .rows import RowReader
from .xlsx import is_header

_SAMPLE = 64 * 1024


def read_delimited(source: Source) -> Iterator[Item]:
    encoding, note = detect(source.path)
    if note:
        yield ExtractionNote(note)
    # The C parser takes a C long; a field can be as long as the file.
    csv.field_size_limit(2**31 - 1)
    is_tsv = source.extension == ".tsv"
    media_type = "text/tab-separated-values" if is_tsv else "text/csv"
    reader = RowReader(source.name, media_type, "row", source.limits.text_characters)
    delimiter = "\t" if is_tsv else _delimiter(source.path, encoding)
    with source.path.open(encoding=encoding, errors="replace", newline="") as file:
        lines = (line.replace("\x00", "") for line in file)
        # A tab-separated file quotes nothing as a rule, and holds lone quotation marks.
        if is_tsv:
            rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, delimiter=delimiter)
        try:
            yield from _documents(reader, rows)
        except csv.Error as error:
            raise Unreadable(
                f"The table is damaged: line {rows.line_num:,} cannot be divided into cells."
            ) from error
    yield from reader.close()


def _documents(reader: RowReader, rows: Iterator[Sequence[str]]) -> Iterator[Item]:
    header: Sequence[str] | None = None
    width = 0
    for number, row in enumerate(rows, start=1):
        if not any(cell.strip() for cell in row):
            continue
        if not width:
            width = len(row)
            if is_header(row) and (width > 1 or row[0].strip().lower() in _ONE_COLUMN):
                header = [cell.strip() for cell in row]
                continue
            header = ["text"] if width == 1 else [f"column {at + 1}" for at in range(width)]
        assert header is not None
        if len(row) > width:
            reader.leave_out("have more cells than there are columns", number)
            continue
        document = reader.read(dict(zip(header, row, strict=False)), number)
        if document is not None:
            yield document


_ONE_COLUMN = {"text", "body", "content", "title", "passage", "document", "query", "question"}


def _delimiter(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        sample = file.read(_SAMPLE)
    try:
        return csv.Sniffer().sniff(sample, delimiters=",;\t|").delimiter
    except csv.Error:
        first = sample.splitlines()[0] if sample.strip() else ""
        counts = {mark: first.count(mark) for mark in ",;\t|"}
        return max(counts, key=lambda mark: counts[mark])
