"""Presentations: each slide is a page; its title is a heading; notes follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .building import TextBuilder, one_line
from .office import opened, properties
from .records import ExtractedDocument, Item, Source, Unreadable

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_MAX_GROUP_DEPTH = 20


def read_pptx(source: Source) -> Iterator[Item]:
    import pptx

    with opened(source, "PowerPoint"):
        deck = pptx.Presentation(str(source.path))
        builder = TextBuilder(source.limits.text_characters)
        for slide in deck.slides:
            _add_slide(builder, slide)
        facts = properties(deck.core_properties)
    if not builder.text().strip():
        raise Unreadable("This presentation holds no text.")
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


def _add_slide(builder: TextBuilder, slide: Any) -> None:
    builder.start_page()
    title = slide.shapes.title
    if title is not None:
        builder.heading(1, title.text_frame.text)
    for shape in slide.shapes:
        if title is None or shape.shape_id != title.shape_id:
            _add_shape(builder, shape, 0)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text
        if notes.strip():
            builder.block(f"Notes: {notes}")


def _add_shape(builder: TextBuilder, shape: Any, depth: int) -> None:
    if hasattr(shape, "shapes"):
        if depth < _MAX_GROUP_DEPTH:
            for inner in shape.shapes:
                _add_shape(builder, inner, depth + 1)
    elif getattr(shape, "has_table", False) and shape.has_table:
        for row in shape.table.rows:
            builder.line(" | ".join(one_line(cell.text) for cell in row.cells))
        builder.end_lines()
    elif getattr(shape, "has_text_frame", False) and shape.has_text_frame:
        builder.block(shape.text_frame.text)
