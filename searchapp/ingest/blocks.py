"""A text to its smallest units: headings, sentences, list items, code blocks, tables (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .extract.records import Heading

Kind = Literal["heading", "prose", "code", "table"]
Path = tuple[str, ...]

_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_FENCE = re.compile(r"\s{0,3}(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*•–]|\d{1,3}[.)])\s")
# A sentence ends behind its closing quotes, before white space; CJK marks need no white space.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？｡]+[」』）”’]*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|Mrs?|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|cf|Fig|fig|Eq|No|Nr|Vol|pp?|Jr|Sr"
    r"|bzw|ca|usw|z\.B|d\.h|approx|al|Inc|Ltd|Co|Sec|Sect|Art|Abs)\.\Z"
)
_LOOK_BACK = 12


@dataclass(frozen=True)
class Unit:
    """text[start:end], without white space at its ends. Units of one paragraph share `block`."""

    start: int
    end: int
    kind: Kind
    path: Path
    block: int


def units(text: str, headings: Sequence[Heading]) -> list[Unit]:
    """Units in text order. Together they hold every character that is not white space."""
    found: list[Unit] = []
    block = 0
    for start, end, path, title in _sections(text, headings):
        body = start
        if title:
            line_end = min(start + len(title), end)
            found.append(Unit(start, line_end, "heading", path, block))
            block += 1
            body = line_end
        for first, last, kind in _blocks(text, body, end):
            for a, b in _sentences(text, first, last) if kind == "prose" else [(first, last)]:
                a, b = trimmed(text, a, b)
                if a < b:
                    found.append(Unit(a, b, kind, path, block))
            block += 1
    return found


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at either end; start == end when there is nothing else."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _sections(text: str, headings: Sequence[Heading]) -> Iterator[tuple[int, int, Path, str]]:
    """(start, end, path, heading words standing at start or ""), from the top of the text on."""
    marks = sorted(
        (heading for heading in headings if 0 <= heading.offset <= len(text)),
        key=lambda heading: heading.offset,
    )
    first = marks[0].offset if marks else len(text)
    if first > 0:
        yield 0, first, (), ""
    stack: list[Heading] = []
    for at, heading in enumerate(marks):
        while stack and stack[-1].level >= heading.level:
            stack.pop()
        stack.append(heading)
        end = marks[at + 1].offset if at + 1 < len(marks) else len(text)
        # Bookmarks of a PDF may point at a page whose text words them otherwise.
        stands = text.startswith(heading.title, heading.offset)
        path = tuple(entry.title for entry in stack)
        yield heading.offset, end, path, heading.title if stands else ""


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int, Kind]]:
    """Paragraphs, fenced or indented code, and tables between two offsets."""
    open_kind: Kind | None = None
    open_at = start
    last_end = start
    fence = ""
    for line in _LINE.finditer(text, start, end):
        a, b = line.span()
        content = line.group().rstrip()
        if fence:
            last_end = b
            if content.lstrip().startswith(fence):
                yield open_at, b, "code"
                fence, open_kind = "", None
            continue
        mark = _FENCE.match(content)
        kind: Kind | None = None if not content else _kind_of(content, open_kind)
        if open_kind is not None and (mark or kind != open_kind):
            yield open_at, last_end, open_kind
            open_kind = None
        if mark:
            fence, open_kind, open_at = mark.group(1), "code", a
        elif kind is not None and open_kind is None:
            open_kind, open_at = kind, a
        last_end = b
    if open_kind is not None:
        yield open_at, end, open_kind


def _kind_of(line: str, before: Kind | None) -> Kind:
    if line.startswith(("    ", "\t")) and before != "prose":
        return "code"
    if line.startswith(">>> ") or (before == "code" and line.startswith("... ")):
        return "code"
    if " | " in line or line.count("\t") >= 2 or (line.startswith("|") and line.endswith("|")):
        return "table"
    return "prose"


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Sentences of a paragraph; a list item begins one of its own."""
    begin = start
    cuts = sorted(_sentence_ends(text, start, end) | _item_starts(text, start, end))
    for cut in cuts:
        if cut > begin:
            yield begin, cut
            begin = cut
    if begin < end:
        yield begin, end


def _sentence_ends(text: str, start: int, end: int) -> set[int]:
    ends = set()
    for found in _END.finditer(text, start, end):
        cut = found.end()
        following = text[cut : cut + 3].lstrip()
        if found.group()[0] == "." and (
            following[:1].islower()
            or _ABBREVIATION.search(text[max(start, cut - _LOOK_BACK) : cut])
        ):
            continue
        ends.add(cut)
    return ends


def _item_starts(text: str, start: int, end: int) -> set[int]:
    return {
        line.start()
        for line in _LINE.finditer(text, start, end)
        if line.start() > start and _ITEM.match(line.group())
    }
