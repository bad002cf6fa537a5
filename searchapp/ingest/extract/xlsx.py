"""Spreadsheets: each sheet is a page; each row is a line that names its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

from .building import TextBuilder, one_line
from .office import opened, properties
from .records import ExtractedDocument, Item, Source, Unreadable

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_MAX_COLUMNS = 500


def read_xlsx(source: Source) -> Iterator[Item]:
    import openpyxl

    # As an open file: given a path, openpyxl judges by the name, and stored files have none.
    with opened(source, "Excel"), source.path.open("rb") as file:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        builder = TextBuilder(source.limits.text_characters)
        for sheet in book.worksheets:
            _add_sheet(builder, sheet)
        facts = properties(book.properties)
        facts["author"] = str(book.properties.creator or "")
    if not builder.text().strip():
        raise Unreadable("This spreadsheet holds no values.")
    if facts["author"] in {"", "openpyxl"}:
        del facts["author"]
    yield ExtractedDocument(
        path=source.name,
        text=builder.text(),
        title=facts.pop("title", "") or source.stem,
        metadata=facts,
        media_type=MEDIA_TYPE,
        page_starts=tuple(builder.page_starts),
        headings=tuple(builder.headings),
        size_bytes=source.path.stat().st_size,
    )


def _add_sheet(builder: TextBuilder, sheet: Any) -> None:
    rows = _rows(sheet)
    first = next(rows, None)
    if first is None:
        return
    builder.start_page()
    builder.heading(1, sheet.title)
    header = first if is_header(first) else None
    builder.line(" | ".join(filter(None, first)))
    for row in rows:
        builder.line(_readable(row, header))
    builder.end_lines()


def _rows(sheet: Any) -> Iterator[list[str]]:
    sheet.reset_dimensions()  # files lie about them
    for values in sheet.iter_rows(values_only=True):
        row = [_cell(value) for value in values[:_MAX_COLUMNS]]
        while row and not row[-1]:
            row.pop()
        if row:
            yield row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and not (value.hour or value.minute or value.second):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return one_line(str(value))


def is_header(row: Sequence[str]) -> bool:
    """Whether a first row names columns: filled, unique, and not numbers."""
    cells = [cell.strip() for cell in row]
    if not cells or len(set(cells)) < len(cells):
        return False
    return all(cell and len(cell) <= 80 and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _readable(row: Sequence[str], header: Sequence[str] | None) -> str:
    if header is None:
        return " | ".join(filter(None, row))
    named = []
    for at, cell in enumerate(row):
        if cell:
            named.append(f"{header[at]}: {cell}" if at < len(header) else cell)
    return " | ".join(named)
