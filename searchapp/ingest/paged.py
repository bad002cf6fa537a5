"""Pages joined to one text, and found again in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .passages import PassageSpan, Sizes, split
from .tokens import TokenCounter

# Behind each page, the last one too, so that every page can be cut out again exactly.
PAGE_END = "\n\n"


def joined(pages: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """The text, and the character offset at which each page starts in it."""
    starts: list[int] = []
    length = 0
    for page in pages:
        starts.append(length)
        length += len(page) + len(PAGE_END)
    return "".join(page + PAGE_END for page in pages), tuple(starts)


def page_span(text_length: int, page_starts: Sequence[int], index: int) -> tuple[int, int]:
    """Where page `index` (from 0) begins and ends, its PAGE_END included."""
    end = page_starts[index + 1] if index + 1 < len(page_starts) else text_length
    return page_starts[index], end


def split_pages(
    text: str, page_starts: Sequence[int], counter: TokenCounter, title: str, sizes: Sizes
) -> list[PassageSpan]:
    """Passages of pages that are not read one after the other: none reaches into the next page."""
    spans: list[PassageSpan] = []
    for index in range(len(page_starts)):
        start, end = page_span(len(text), page_starts, index)
        own = split(text[start:end], counter=counter, title=title, sizes=sizes)
        spans += [
            replace(
                span,
                start=span.start + start,
                end=span.end + start,
                page_first=index + 1,
                page_last=index + 1,
            )
            for span in own
        ]
    return spans
