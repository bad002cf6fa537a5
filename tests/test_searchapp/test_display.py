"""Snippets and marks: what people read of a hit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.ranking import analysis
from searchapp.search import display, reading


def wanted(query: str, language: str = "en") -> frozenset[str]:
    return frozenset(analysis.query_terms(query, language))


def marks(text: str, query: str, language: str = "en") -> list[str]:
    parts = display.marked(text, wanted(query, language), language)
    return [part.text for part in parts if part.matched]


def test_words_are_marked_in_all_their_forms() -> None:
    assert marks("Exceptions: an exception was raised.", "raise exceptions") == [
        "Exceptions",
        "exception",
        "raised",
    ]


def test_stop_words_of_the_query_mark_nothing() -> None:
    assert marks("How do I do this?", "how do I open files") == []


def test_characters_of_spaceless_scripts_are_marked_where_they_match() -> None:
    assert marks("我们在东京旅行。", "东京", "zh") == ["东京"]


@given(st.text(max_size=300), st.sampled_from(["en", "de", "zh", "none"]))
def test_marking_never_changes_the_text(text: str, language: str) -> None:
    parts = display.marked(text, wanted("exception 東京 straße", language), language)
    assert "".join(part.text for part in parts) == text


def test_the_snippet_is_the_sentence_with_most_different_words() -> None:
    text = "Files are opened. Several exceptions are caught in one clause. The end is near."
    parts = display.snippet(text, wanted("catch several exceptions clause"), "en")
    assert "".join(part.text for part in parts).startswith("… Several exceptions are caught")


def test_a_long_sentence_is_cut_around_its_match() -> None:
    text = "alpha " * 200 + "needle " + "omega " * 200
    joined = "".join(part.text for part in display.snippet(text, wanted("needle"), "en"))
    assert "needle" in joined
    assert len(joined) <= display.SNIPPET_CHARACTERS + 4
    assert joined.startswith("… ") and joined.endswith(" …")


def test_underlines_of_headings_are_left_out_of_snippets() -> None:
    text = "Errors\n======\nAn error ends the program."
    joined = "".join(part.text for part in display.snippet(text, wanted("error"), "en"))
    assert joined == "Errors An error ends the program."


def test_empty_passages_have_empty_snippets() -> None:
    assert display.snippet(" \n ", wanted("word"), "en") == []


@pytest.mark.parametrize(
    ("first", "last", "label"),
    [(None, None, ""), (4, 4, "p. 4"), (4, None, "p. 4"), (4, 5, "pp. 4–5")],
)
def test_pages_read_as_in_a_book(first: int | None, last: int | None, label: str) -> None:
    assert display.page_label(first, last) == label


def test_the_innermost_heading_is_the_title_and_repeats_are_dropped() -> None:
    assert display.headline("Manual", ["Manual", "Try", "Except"]) == ("Except", ["Manual", "Try"])
    assert display.headline("", []) == ("Untitled", [])


def test_a_large_text_is_cut_into_windows_at_paragraphs() -> None:
    text = "\n\n".join(["x" * 900] * 100)
    starts = reading.windows(text)
    assert len(starts) == 3
    assert all(text[start - 1] == "\n" for start in starts[1:])
    assert [reading.window_of(starts, at) for at in (0, starts[1] - 1, starts[1])] == [1, 1, 2]


def test_a_text_without_breaks_is_cut_anyway() -> None:
    starts = reading.windows("x" * 100_000)
    assert starts == [0, 40_000, 80_000]


@given(
    st.text(min_size=1, max_size=200),
    st.lists(st.integers(0, 200), max_size=5),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_pieces_give_the_text_back(text: str, pages: list[int], start: int, length: int) -> None:
    page_starts = sorted(min(each, len(text)) for each in pages)
    span = (min(start, len(text)), min(start + length, len(text)))
    pieces = reading.pieces(text, 0, len(text), page_starts, span)
    assert "".join(piece.text for piece in pieces) == text
    assert "".join(piece.text for piece in pieces if piece.highlighted) == text[span[0] : span[1]]
    assert sum(piece.is_target for piece in pieces) == (span[1] > span[0])
