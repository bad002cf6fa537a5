"""One document laid out for reading: a window of its text, cut where pages and passages begin."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from searchapp.models import Passage

# What one page of the reader holds; a larger document is read window by window.
WINDOW_CHARACTERS = 40_000
# How far the cut between two windows may move back to the end of a paragraph.
CUT_SLACK = 2_000
MAX_OUTLINE = 400


@dataclass(frozen=True)
class Piece:
    """A stretch of text. `page`: the number of the page that begins here, else None."""

    text: str
    highlighted: bool = False
    page: int | None = None
    # The first highlighted piece, to which the page scrolls.
    is_target: bool = False


@dataclass(frozen=True)
class Heading:
    """A line of the outline and the window it is in, from 1."""

    label: str
    window: int
    anchor: str
    depth: int = 0


def windows(text: str) -> list[int]:
    """Where each window starts; the first at 0. Cut after a paragraph where one ends near."""
    starts = [0]
    while len(text) - starts[-1] > WINDOW_CHARACTERS + CUT_SLACK:
        limit = starts[-1] + WINDOW_CHARACTERS
        at = text.rfind("\n\n", limit - CUT_SLACK, limit)
        if at < 0:
            at = text.rfind("\n", limit - CUT_SLACK, limit)
        starts.append(at + 1 if at >= 0 else limit)
    return starts


def window_of(starts: Sequence[int], offset: int) -> int:
    """The number of the window, from 1, that holds the character offset."""
    return max(bisect_right(starts, offset), 1)


def pieces(
    text: str, begin: int, end: int, page_starts: Sequence[int], span: tuple[int, int] | None
) -> list[Piece]:
    """text[begin:end] in pieces; joined they give it back. `span`: what is highlighted."""
    marks = set(span or ())
    pages = {start: number for number, start in enumerate(page_starts, 1)}
    # Several pages without text start at one offset: the last of them is the one seen.
    cuts = sorted(each for each in {begin, end, *marks, *pages} if begin <= each <= end)
    found: list[Piece] = []
    targeted = False
    for start, stop in pairwise(cuts):
        inside = span is not None and span[0] <= start < span[1]
        found.append(
            Piece(text[start:stop], inside, pages.get(start), is_target=inside and not targeted)
        )
        targeted = targeted or inside
    return found


def outline(
    starts: Sequence[int], page_starts: Sequence[int], passages: Sequence[Passage]
) -> list[Heading]:
    """The pages, or without pages the headings as the passages carry them."""
    if len(page_starts) > 1:
        return [
            Heading(f"Page {number}", window_of(starts, start), f"page-{number}")
            for number, start in enumerate(page_starts[:MAX_OUTLINE], 1)
        ]
    found: list[Heading] = []
    last: list[str] = []
    for passage in passages:
        way = [str(each) for each in passage.heading_path]
        if not way or way == last or len(found) >= MAX_OUTLINE:
            continue
        last = way
        found.append(
            Heading(way[-1], window_of(starts, passage.start), str(passage.ordinal), len(way) - 1)
        )
    return found if len(found) > 1 else []
