"""Snippets: passages widened to what is worth reading, or narrowed to what answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rerank.ranking import analysis
from searchapp.ingest.blocks import units
from searchapp.ingest.passages import pages_of
from searchapp.models import DocumentText, Passage

# What snippets are to have on average, in characters.
COARSE, PRECISE = 2000, 200

# Texts of documents are read for so many passages at once.
_READ_AHEAD = 24

Span = tuple[int, int]


@dataclass(frozen=True)
class Snippet:
    """text[start:end] of its document. `page_span`: first page from 0, and the one behind the
    last; a document without pages counts as one."""

    document_id: int
    start: int
    end: int
    text: str
    page_span: tuple[int, int]
    score: float


def choose(
    passages: Sequence[tuple[Passage, float]],
    query: str,
    language: str,
    k: int,
    *,
    precise: bool,
) -> list[Snippet]:
    """At most k, best first; none overlaps another."""
    wanted = frozenset(analysis.query_terms(query, language))
    taken: dict[int, list[Span]] = {}
    found: list[Snippet] = []
    texts: dict[int, DocumentText] = {}
    for at, (passage, score) in enumerate(passages):
        if len(found) == k:
            break
        if at % _READ_AHEAD == 0:
            ahead = {each.document_id for each, _ in passages[at : at + _READ_AHEAD]}
            texts = {pk: texts[pk] for pk in ahead & texts.keys()}
            texts |= DocumentText.objects.in_bulk(ahead - texts.keys())
        kept = texts[passage.document_id]
        own = taken.setdefault(passage.document_id, [])
        if precise:
            span = _narrowed(kept.text, passage, wanted, language, own)
        else:
            span = _widened(kept.text, (passage.start, passage.end), own)
        if span is None:
            continue
        own.append(span)
        start, end = span
        first, last = pages_of(start, end, kept.page_starts)
        pages = (0, 1) if first is None else (first - 1, last or first)
        text = kept.text[start:end]
        found.append(Snippet(passage.document_id, start, end, text, pages, score))
    return found


def _widened(text: str, span: Span, taken: Sequence[Span]) -> Span | None:
    """The passage with as much around it, in whole lines where they end near, as makes COARSE
    characters; None for one that mostly lies in a snippet already."""
    start, end = span
    if any(min(end, b) - max(start, a) > (end - start) / 2 for a, b in taken):
        return None
    lowest = max((b for a, b in taken if a < start), default=0)
    highest = min((a for a, b in taken if a > start), default=len(text))
    start, end = max(start, lowest), min(end, highest)
    if start >= end:
        return None
    spare = max(COARSE - (end - start), 0)
    begin = max(start - spare // 2, lowest)
    stop = min(end + spare - (start - begin), highest)
    begin = max(stop - COARSE, lowest) if stop == highest and stop - begin < COARSE else begin
    return min(_line_start(text, begin, start), start), max(_line_end(text, end, stop), end)


def _line_start(text: str, begin: int, start: int) -> int:
    if begin == 0:
        return 0
    at = text.find("\n", begin, start)
    if at < 0:
        at = text.find(" ", begin, start)
    return at + 1 if at >= 0 else begin


def _line_end(text: str, end: int, stop: int) -> int:
    if stop >= len(text):
        return len(text)
    at = text.rfind("\n", end, stop)
    if at < 0:
        at = text.rfind(" ", end, stop)
    return at if at >= 0 else stop


def _narrowed(
    text: str, passage: Passage, wanted: frozenset[str], language: str, taken: Sequence[Span]
) -> Span | None:
    """The run of sentences up to PRECISE characters that holds most words of the query, the first
    of equals; None when all of it is taken."""
    best: tuple[int, Span] | None = None
    for start, end in _runs(text[passage.start : passage.end]):
        span = (passage.start + start, passage.start + end)
        if any(span[0] < b and a < span[1] for a, b in taken):
            continue
        held = len(wanted.intersection(analysis.terms(text[span[0] : span[1]], language)))
        if best is None or held > best[0]:
            best = (held, span)
    return best[1] if best is not None else None


def _runs(text: str) -> Iterator[Span]:
    """From each sentence on, as many as fit; one too long is cut at spaces."""
    sentences = [cut for unit in units(text, ()) for cut in _cut(text, unit.start, unit.end)]
    for at, (start, end) in enumerate(sentences):
        for _, after in sentences[at + 1 :]:
            if after - start > PRECISE:
                break
            end = after
        yield start, end


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    while end - start > 2 * PRECISE:
        at = text.rfind(" ", start + 1, start + PRECISE)
        at = at if at > start else start + PRECISE
        yield start, at
        start = at + (text[at : at + 1] == " ")
    if start < end:
        yield start, end
