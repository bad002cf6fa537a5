"""Markdown, read through its parser: headings, paragraphs, lists, tables and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from .building import TextBuilder, one_line
from .encodings import decode
from .records import ExtractedDocument, ExtractionNote, Item, Source, Unreadable

_TAG = re.compile(r"<!--.*?-->|</?[A-Za-z][^>]*>", re.S)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_FRONT_LINE = re.compile(r"^([A-Za-z_][\w -]{0,60}):[ \t]*(.+)$", re.M)


def read_markdown(source: Source) -> Iterator[Item]:
    text, note = decode(source.path)
    facts, body = split_front_matter(text)
    builder = TextBuilder(source.limits.text_characters)
    parser = MarkdownIt("commonmark").enable("table")
    _add(builder, parser.parse(body))
    if not builder.text().strip():
        raise Unreadable("The file holds no text.")
    if note:
        yield ExtractionNote(note)
    first = builder.headings[0].title if builder.headings else ""
    yield ExtractedDocument(
        path=source.name,
        text=builder.text(),
        title=str(facts.pop("title", "")) or first or source.stem,
        metadata=facts,
        media_type="text/markdown",
        headings=tuple(builder.headings),
        size_bytes=source.path.stat().st_size,
    )


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """(simple `key: value` pairs of a leading --- block, the rest of the text)."""
    found = _FRONT_MATTER.match(text)
    if not found:
        return {}, text
    facts: dict[str, Any] = {}
    for key, value in _FRONT_LINE.findall(found.group(1))[:50]:
        value = value.strip().strip("\"'")
        if value.startswith("[") and value.endswith("]"):
            parts = [part.strip().strip("\"'") for part in value[1:-1].split(",")]
            facts[key] = [part for part in parts if part]
        elif value:
            facts[key] = value[:500]
    return facts, text[found.end() :]


def _add(builder: TextBuilder, tokens: Sequence[Token]) -> None:
    depth = 0  # list nesting
    marks: list[str] = []
    row: list[str] | None = None
    heading = 0
    for token in tokens:
        kind = token.type
        if kind in {"bullet_list_open", "ordered_list_open"}:
            depth += 1
        elif kind in {"bullet_list_close", "ordered_list_close"}:
            depth -= 1
            if not depth:
                builder.end_lines()
        elif kind == "list_item_open":
            marks.append(f"{token.info}{token.markup} " if token.info else "- ")
        elif kind == "heading_open":
            heading = int(token.tag[1:])
        elif kind == "tr_open":
            row = []
        elif kind == "tr_close" and row is not None:
            builder.line(" | ".join(row))
            row = None
        elif kind == "table_close":
            builder.end_lines()
        elif kind in {"fence", "code_block"}:
            builder.end_lines()
            builder.block(f"```{token.info.strip()}\n{token.content.rstrip()}\n```")
        elif kind == "html_block":
            builder.block(_TAG.sub("", token.content))
        elif kind == "inline":
            text = _inline(token.children or [])
            if heading:
                builder.end_lines()
                builder.heading(heading, text)
                heading = 0
            elif row is not None:
                row.append(one_line(text))
            elif depth:
                builder.line((marks.pop() if marks else "") + text)
            else:
                builder.block(text)
    builder.end_lines()


def _inline(children: Sequence[Token]) -> str:
    parts: list[str] = []
    for child in children:
        if child.type in {"softbreak", "hardbreak"}:
            parts.append("\n")
        elif child.type == "code_inline":
            parts.append(f"`{child.content}`")
        elif child.type == "html_inline":
            continue
        else:
            parts.append(child.content)
    return "".join(parts)
