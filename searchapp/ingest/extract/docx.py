"""Word documents: paragraphs, headings and tables in their order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .building import TextBuilder, one_line
from .office import opened, properties
from .records import ExtractedDocument, Item, Source, Unreadable

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_HEADING = re.compile(r"(?:heading|überschrift|titre|título|kop|rubrik|overskrift)\s*(\d)", re.I)


def read_docx(source: Source) -> Iterator[Item]:
    import docx

    with opened(source, "Word"):
        document = docx.Document(str(source.path))
        builder = TextBuilder(source.limits.text_characters)
        _add(builder, document)
        facts = properties(document.core_properties)
    if not builder.text().strip():
        raise Unreadable("This Word document holds no text.")
    yield ExtractedDocument(
        path=source.name,
        text=builder.text(),
        title=facts.pop("title", "") or _first_title(builder) or source.stem,
        metadata=facts,
        media_type=MEDIA_TYPE,
        headings=tuple(builder.headings),
        size_bytes=source.path.stat().st_size,
    )


def _add(builder: TextBuilder, document: Any) -> None:
    in_list = False
    for element in document.iter_inner_content():
        if hasattr(element, "rows"):
            builder.end_lines()
            _add_table(builder, element)
            in_list = False
            continue
        style = str(getattr(element.style, "name", "") or "")
        heading = _HEADING.match(style)
        if in_list and not style.startswith("List"):
            builder.end_lines()
            in_list = False
        if style == "Title" or heading:
            builder.heading(int(heading.group(1)) if heading else 1, element.text)
        elif style.startswith("List"):
            builder.line(f"- {element.text}" if element.text.strip() else "")
            in_list = True
        else:
            builder.block(element.text)
    builder.end_lines()


def _add_table(builder: TextBuilder, table: Any) -> None:
    for row in table.rows:
        cells: list[str] = []
        previous = None
        for cell in row.cells:
            if cell._tc is previous:  # merged cells come once per column
                continue
            previous = cell._tc
            cells.append(one_line(cell.text))
        if any(cells):
            builder.line(" | ".join(cells))
    builder.end_lines()


def _first_title(builder: TextBuilder) -> str:
    first = builder.headings[0] if builder.headings else None
    return first.title if first and first.offset == 0 else ""
