"""A document's text to passages (pure): packed from whole sentences under their headings, sized in
tokens of the embedder so that title, headings and text together fit its window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from .blocks import Path, Unit, trimmed, units
from .extract.records import Heading
from .tokens import Offsets, TokenCounter, count_all, crop, token_counter

# Of the 256 tokens the smallest embedders read, two are special.
WINDOW_TOKENS = 254
TITLE_TOKENS = 60
PATH_TOKENS = 60
# However little the headings leave of a small window, a passage holds something.
_LEAST_TOKENS = 16
# Whatever its tokens, a passage is something to read; runs without spaces can be one token.
MAX_CHARACTERS = 2400


@dataclass(frozen=True)
class Sizes:
    """In tokens. `window` bounds title, headings and text together. A new section starts a new
    passage once the last one holds `enough`."""

    window: int = WINDOW_TOKENS
    target: int = 220
    overlap: int = 30
    enough: int = 60


@dataclass(frozen=True)
class PassageSpan:
    """text[start:end] of a document. Pages count from 1, None where the format has none.

    `tokens` counts the span alone, without title and headings.
    """

    start: int
    end: int
    page_first: int | None
    page_last: int | None
    heading_path: Path
    tokens: int


@dataclass(frozen=True)
class PreviewPassage:
    """One passage of a dry run."""

    text: str
    heading_path: Path
    tokens: int
    page_first: int | None
    page_last: int | None


def split(
    text: str,
    *,
    counter: TokenCounter,
    title: str = "",
    headings: Sequence[Heading] = (),
    page_starts: Sequence[int] = (),
    sizes: Sizes = Sizes(),
) -> list[PassageSpan]:
    """Passages in text order; together they hold every character that is not white space.

    Neighbours overlap by a sentence or two inside a section. Empty for a text without words.
    """
    if not text.strip():
        return []
    ruler = _Ruler(text, counter.starts(text), _HeaderRoom(title, counter, sizes.window))
    spans: list[PassageSpan] = []
    for run in _pack(_fitting(units(text, headings), ruler), ruler, sizes):
        start, end = run[0].start, run[-1].end
        first, last = pages_of(start, end, page_starts)
        path = ruler.room.fitted(_shared_path(run))
        spans.append(PassageSpan(start, end, first, last, path, ruler.tokens(start, end)))
    return spans


def fit_title(title: str, counter: TokenCounter) -> str:
    """The title as documents keep it: at most TITLE_TOKENS tokens and 500 characters."""
    return crop(" ".join(title.split())[:499], TITLE_TOKENS, counter)


def preview(
    text: str,
    *,
    title: str = "",
    headings: Sequence[Heading] = (),
    page_starts: Sequence[int] = (),
    tokenizer_file: str | None = None,
    sizes: Sizes = Sizes(),
) -> list[PreviewPassage]:
    """What `split` would make of a text, to be looked at; nothing is written."""
    spans = split(
        text,
        counter=token_counter(tokenizer_file),
        title=title,
        headings=headings,
        page_starts=page_starts,
        sizes=sizes,
    )
    return [
        PreviewPassage(
            text[span.start : span.end],
            span.heading_path,
            span.tokens,
            span.page_first,
            span.page_last,
        )
        for span in spans
    ]


def pages_of(start: int, end: int, page_starts: Sequence[int]) -> tuple[int | None, int | None]:
    """First and last page (from 1) of a span; (None, None) without pages."""
    if not page_starts:
        return None, None
    first = max(1, bisect_right(page_starts, start))
    return first, max(first, bisect_right(page_starts, end - 1))


class _HeaderRoom:
    """How many tokens a heading path leaves for the text below it."""

    def __init__(self, title: str, counter: TokenCounter, window: int) -> None:
        self._window = window
        self._counter = counter
        self._title_tokens = len(counter.starts(title)) if title else 0
        self._fitted: dict[Path, Path] = {}
        self._left: dict[Path, int] = {}

    def fitted(self, path: Path) -> Path:
        """The path cut to PATH_TOKENS: innermost headings first, long ones shortened."""
        known = self._fitted.get(path)
        if known is None:
            kept: list[str] = []
            used = 0
            for heading in reversed(path):
                shortened = crop(heading, PATH_TOKENS // 2, self._counter)
                size = count_all([shortened], self._counter)[0] + 1
                if used + size > PATH_TOKENS:
                    break
                kept.insert(0, shortened)
                used += size
            known = self._fitted[path] = tuple(kept)
        return known

    def left(self, path: Path) -> int:
        """Tokens of the window that a passage under `path` may fill."""
        known = self._left.get(path)
        if known is None:
            header = sum(count + 2 for count in count_all(self.fitted(path), self._counter))
            title = min(self._title_tokens, TITLE_TOKENS + 1)
            known = max(_LEAST_TOKENS, self._window - title - header)
            self._left[path] = known
        return known


class _Ruler:
    """Counts tokens between two offsets of one text."""

    def __init__(self, text: str, starts: Offsets, room: _HeaderRoom) -> None:
        self.text = text
        self.starts = starts
        self.room = room

    def tokens(self, start: int, end: int) -> int:
        low, high = np.searchsorted(self.starts, (start, end))
        return int(high - low)

    def beyond(self, start: int, tokens: int) -> int:
        """The offset of the first token that no longer fits, at most MAX_CHARACTERS away."""
        at = int(np.searchsorted(self.starts, start)) + tokens
        limit = start + MAX_CHARACTERS
        return min(int(self.starts[at]), limit) if at < len(self.starts) else limit


@dataclass(frozen=True)
class _Sized:
    unit: Unit
    tokens: int

    @property
    def start(self) -> int:
        return self.unit.start

    @property
    def end(self) -> int:
        return self.unit.end


def _fitting(found: Sequence[Unit], ruler: _Ruler) -> list[_Sized]:
    """Units with their sizes; those larger than a passage cut at lines, else words, else tokens."""
    lows = np.searchsorted(ruler.starts, [unit.start for unit in found])
    highs = np.searchsorted(ruler.starts, [unit.end for unit in found])
    sized: list[_Sized] = []
    for unit, count in zip(found, (highs - lows).tolist(), strict=True):
        if count <= ruler.room.left(unit.path) and unit.end - unit.start <= MAX_CHARACTERS:
            sized.append(_Sized(unit, count))
        else:
            sized.extend(_cut(unit, ruler))
    return sized


def _cut(unit: Unit, ruler: _Ruler) -> Iterator[_Sized]:
    start = unit.start
    room = ruler.room.left(unit.path)
    while start < unit.end:
        end = min(ruler.beyond(start, room), unit.end)
        if end < unit.end:
            end = _cut_point(ruler.text, start, end, unit.kind)
        end = max(end, start + 1)
        a, b = trimmed(ruler.text, start, end)
        if a < b:
            part = Unit(a, b, unit.kind, unit.path, unit.block)
            yield _Sized(part, ruler.tokens(a, b))
        start = end


def _cut_point(text: str, start: int, end: int, kind: str) -> int:
    """The last line end (code, tables) or space in the second half of text[start:end], else end."""
    half = start + (end - start) // 2
    marks = "\n " if kind in {"code", "table"} else " \n"
    for mark in marks:
        at = text.rfind(mark, half, end)
        if at > start:
            return at + 1
    return end


def _pack(sized: Sequence[_Sized], ruler: _Ruler, sizes: Sizes) -> Iterator[list[Unit]]:
    """Runs of units, each a passage, in order. The first units of a run may repeat the last ones
    of the run before."""
    blocks = _block_tokens(sized)
    run: list[_Sized] = []
    fresh = 0  # the run's first unit that is not overlap
    for item in sized:
        if run and _is_full(run, item, blocks[item.unit.block], ruler, sizes):
            carried = _trailing_headings(run)
            if carried and not _fits(carried[0], item, ruler):
                carried = []
            closed = run[: len(run) - len(carried)]
            if len(closed) > fresh:
                yield [entry.unit for entry in closed]
                run = carried or _overlap(closed, item, ruler, sizes)
                fresh = 0 if carried else len(run)
        run.append(item)
    if run:
        yield [entry.unit for entry in run]


def _block_tokens(sized: Sequence[_Sized]) -> dict[int, int]:
    totals: dict[int, int] = {}
    for item in sized:
        totals[item.unit.block] = totals.get(item.unit.block, 0) + item.tokens
    return totals


def _is_full(
    run: Sequence[_Sized], item: _Sized, block_tokens: int, ruler: _Ruler, sizes: Sizes
) -> bool:
    """Whether `item` starts a new passage."""
    used = ruler.tokens(run[0].start, run[-1].end)
    together = ruler.tokens(run[0].start, item.end)
    if not _fits(run[0], item, ruler):
        return True
    if item.unit.kind == "heading" and run[-1].unit.kind != "heading" and used >= sizes.enough:
        return True
    target = min(sizes.target, ruler.room.left(run[0].unit.path))
    if together <= target:
        # A paragraph that will not fit whole starts afresh when this passage is long enough.
        starts_block = item.unit.block != run[-1].unit.block and run[-1].unit.kind != "heading"
        return starts_block and used >= 0.6 * target and used + block_tokens > target
    return used >= 0.4 * target


def _fits(first: _Sized, last: _Sized, ruler: _Ruler) -> bool:
    """Whether one passage can reach from `first` to `last`."""
    room = min(ruler.room.left(first.unit.path), ruler.room.left(last.unit.path))
    size = last.end - first.start
    return size <= MAX_CHARACTERS and ruler.tokens(first.start, last.end) <= room


def _trailing_headings(run: Sequence[_Sized]) -> list[_Sized]:
    """Headings at the end of a run belong to what follows them."""
    count = 0
    while count < len(run) and run[-1 - count].unit.kind == "heading":
        count += 1
    return list(run[len(run) - count :]) if count < len(run) else []


def _overlap(closed: Sequence[_Sized], item: _Sized, ruler: _Ruler, sizes: Sizes) -> list[_Sized]:
    """The last sentences of a closed passage that the next one repeats: same section, prose."""
    kept: list[_Sized] = []
    for entry in reversed(closed[1:]):
        unit = entry.unit
        if unit.kind != "prose" or item.unit.kind != "prose" or unit.path != item.unit.path:
            break
        is_long = ruler.tokens(entry.start, closed[-1].end) > sizes.overlap
        is_crowded = ruler.tokens(entry.start, item.end) > sizes.target
        if is_long or is_crowded or not _fits(entry, item, ruler):
            break
        kept.insert(0, entry)
    return kept


def _shared_path(run: Sequence[Unit]) -> Path:
    """The heading path all units of a run have in common."""
    shared = run[0].path
    for unit in run[1:]:
        if unit.path != shared:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(shared, unit.path, strict=False))
            shared = tuple(one for one, _ in same)
    return shared
