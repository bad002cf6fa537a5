"""Hits as rows for people: titles, the best sentence with its matched words, where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID

from rerank.ranking import analysis
from searchapp.models import Passage

from .result import Hit

SNIPPET_CHARACTERS = 280
# A passage is about 220 tokens; only odd ones are longer, and their end is not worth the time.
READ_CHARACTERS = 6000

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n{2,}|\n(?=\s*(?:[-*•]|\d+[.)])\s)")
# Lines of signs only: the underlines of headings in plain text, the borders of tables.
_RULE = re.compile(r"^[ \t]*[-=*~^_#+|.:\"'`]{3,}[ \t]*$\n?", re.MULTILINE)
# Scripts without spaces between words; the analysis turns them into pairs of characters.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]+|[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)*")
_IS_CJK = re.compile(rf"[{_CJK}]")


@dataclass(frozen=True)
class Part:
    """A stretch of text; `matched` when it holds a word of the query."""

    text: str
    matched: bool = False


@dataclass(frozen=True)
class Row:
    """One hit as a person reads it. `deleted`: the passage is gone, only its numbers are left."""

    hit: Hit
    title: str
    trail: Sequence[str] = ()
    snippet: Sequence[Part] = ()
    document_uid: UUID | None = None
    document_title: str = ""
    path: str = ""
    ordinal: int = 0
    pages: str = ""
    text: str = field(default="", repr=False)

    @property
    def deleted(self) -> bool:
        return self.document_uid is None

    @property
    def bar(self) -> str | None:
        """The number shown, in percent, for a bar; None when there is none or it is no share."""
        relevance = self.hit.relevance_shown
        if relevance is None or not 0 <= relevance <= 1:
            return None
        return f"{100 * relevance:.1f}"

    @property
    def direction(self) -> str:
        if self.hit.movement > 0:
            return "up"
        return "down" if self.hit.movement < 0 else "same"

    @property
    def places(self) -> int:
        return abs(self.hit.movement)

    @property
    def movement_in_words(self) -> str:
        if not self.hit.movement:
            return f"unchanged at {self.hit.rank}"
        return f"{self.direction} {self.places} from {self.hit.first_stage_rank}"


def rows(hits: Iterable[Hit], query: str, language: str) -> list[Row]:
    """One row per hit, in the order given, with two database queries however many there are."""
    hits = list(hits)
    passages = passages_by_id([hit.passage_id for hit in hits])
    wanted = frozenset(analysis.query_terms(query, language))
    return [_row(hit, passages.get(hit.passage_id), wanted, language) for hit in hits]


def titles(hits: Iterable[Hit]) -> list[Row]:
    """Rows without snippets, for pictures and tables of a hundred places."""
    hits = list(hits)
    passages = passages_by_id([hit.passage_id for hit in hits], with_text=False)
    return [_row(hit, passages.get(hit.passage_id), frozenset(), "none") for hit in hits]


def passages_by_id(ids: Sequence[int], *, with_text: bool = True) -> dict[int, Passage]:
    """Those of the passages that still exist, with the document's narrow columns."""
    queryset = Passage.objects.filter(pk__in=ids).select_related("document")
    if not with_text:
        queryset = queryset.defer("text")
    return {passage.pk: passage for passage in queryset}


def page_label(first: int | None, last: int | None) -> str:
    """ "p. 4", "pp. 4–5", or "" for formats without pages."""
    if first is None:
        return ""
    return f"p. {first}" if last is None or last == first else f"pp. {first}–{last}"


def headline(document_title: str, heading_path: Sequence[str]) -> tuple[str, list[str]]:
    """(title of a row, what stands above it): the innermost heading and the way to it."""
    way: list[str] = []
    for step in [document_title, *heading_path]:
        cleaned = str(step).strip()
        if cleaned and cleaned not in way:
            way.append(cleaned)
    return (way[-1], way[:-1]) if way else ("Untitled", [])


def marked(text: str, wanted: frozenset[str], language: str) -> list[Part]:
    """The text in parts, those matching a wanted term flagged; joined they give the text."""
    parts: list[Part] = []
    at = 0
    for start, end in _matches(text, wanted, language):
        if start > at:
            parts.append(Part(text[at:start]))
        parts.append(Part(text[start:end], True))
        at = end
    if at < len(text):
        parts.append(Part(text[at:]))
    return parts


def snippet(text: str, wanted: frozenset[str], language: str) -> list[Part]:
    """The sentence that holds most different wanted terms (the earliest of equals), and as much of
    what follows as fits; a very long sentence is cut around its first match."""
    text = _RULE.sub("", text[:READ_CHARACTERS])
    sentences = [part for part in _SENTENCE_END.split(text) if part and part.strip()]
    if not sentences:
        return []
    counts = [len(_terms_in(sentence, wanted, language)) for sentence in sentences]
    best = counts.index(max(counts))
    chosen = _flat(sentences[best])
    following = best + 1
    while following < len(sentences) and len(chosen) < SNIPPET_CHARACTERS * 0.6:
        chosen = f"{chosen} {_flat(sentences[following])}"
        following += 1
    chosen, cut_start, cut_end = _window(chosen, wanted, language)
    parts = marked(chosen, wanted, language)
    if best > 0 or cut_start:
        parts.insert(0, Part("… "))
    if following < len(sentences) or cut_end:
        parts.append(Part(" …"))
    return parts


def _row(hit: Hit, passage: Passage | None, wanted: frozenset[str], language: str) -> Row:
    if passage is None:
        return Row(hit=hit, title="This passage has been deleted since")
    document = passage.document
    title, trail = headline(document.title or document.path, passage.heading_path)
    text = passage.text if "text" not in passage.get_deferred_fields() else ""
    return Row(
        hit=hit,
        title=title,
        trail=trail,
        snippet=snippet(_below_heading(text, title), wanted, language),
        document_uid=document.uid,
        document_title=document.title or document.path,
        path=document.path,
        ordinal=passage.ordinal,
        pages=page_label(passage.page_first, passage.page_last),
        text=text,
    )


def _below_heading(text: str, title: str) -> str:
    """The text without a first line that only repeats the title above it."""
    first, _, rest = text.lstrip().partition("\n")
    return rest if rest.strip() and first.strip(" #*=") == title.strip(" #*=") else text


def _window(text: str, wanted: frozenset[str], language: str) -> tuple[str, bool, bool]:
    """At most SNIPPET_CHARACTERS of text, cut at spaces, from just before the first match."""
    if len(text) <= SNIPPET_CHARACTERS:
        return text, False, False
    first = next((start for start, _ in _matches(text, wanted, language)), 0)
    begin = max(0, min(first - 60, len(text) - SNIPPET_CHARACTERS))
    end = begin + SNIPPET_CHARACTERS
    if begin and " " in text[begin : begin + 30]:
        begin = text.index(" ", begin) + 1
    if end < len(text) and " " in text[end - 30 : end]:
        end = text.rindex(" ", begin, end)
    return text[begin:end], begin > 0, end < len(text)


def _matches(text: str, wanted: frozenset[str], language: str) -> list[tuple[int, int]]:
    """Spans of matching words; touching spans of spaceless scripts become one."""
    spans: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        for start, end in _word_spans(word.group(), wanted, language):
            begin, stop = word.start() + start, word.start() + end
            if spans and begin <= spans[-1][1]:
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((begin, stop))
    return spans


def _word_spans(word: str, wanted: frozenset[str], language: str) -> list[tuple[int, int]]:
    if not _IS_CJK.match(word) or len(word) < 3:
        return [(0, len(word))] if wanted & _terms_of_word(word, language) else []
    pairs = (range(index, index + 2) for index in range(len(word) - 1))
    return [
        (pair.start, pair.stop)
        for pair in pairs
        if wanted & _terms_of_word(word[pair.start : pair.stop], language)
    ]


def _terms_in(text: str, wanted: frozenset[str], language: str) -> set[str]:
    found: set[str] = set()
    for word in _WORD.finditer(text):
        for start, end in _word_spans(word.group(), wanted, language):
            found |= wanted & _terms_of_word(word.group()[start:end], language)
    return found


@lru_cache(maxsize=65_536)
def _terms_of_word(word: str, language: str) -> frozenset[str]:
    return frozenset(analysis.terms(word, language))


def _flat(text: str) -> str:
    return " ".join(text.split())
