"""Contrasts around given passages, of rows written here."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rerank.errors import BadInput
from rerank.zelo.instructions.generate import Plan, contrasts
from rerank.zelo.instructions.wrapped import KINDS, LONGEST, Row, Rows, read_rows

SUBJECTS = ["lamp", "fence", "ladder", "stove", "bridge", "drum", "anchor", "kite", "clock"]
LANGUAGES = {
    "alpha": "en",
    "beta": "de",
    "gamma": "fr",
    "delta": "nl",
    "epsilon": "it",
    "zeta": "sv",
}


def rows() -> list[Row]:
    """Six sources of ten rows, each with a language; two sentences a passage."""
    return [
        Row(
            f"what is the {subject} of {source} for",
            f"The {subject} of {source} serves travellers by night. It was built by hand long ago.",
            (f"Nobody in {source} has seen a whale near any {subject}, and so they wait.",),
            f"docs:someone/{source}-guide#part",
            language,
        )
        for source, language in LANGUAGES.items()
        for subject in SUBJECTS
    ]


def sides() -> tuple[Rows, Rows]:
    return Rows(rows(), held_out=False), Rows(rows(), held_out=True)


def test_both_sides_of_the_split_hold_sources_of_their_own() -> None:
    train, held = sides()
    sources = [{row.source for row in side.rows} for side in (train, held)]
    assert sources[0] and sources[1] and not sources[0] & sources[1]
    assert len(train.rows) + len(held.rows) == len(rows())


def test_a_text_that_training_has_is_not_measured_on() -> None:
    every = rows()
    train, held = sides()
    copied = held.rows[0]
    again = Row("asked otherwise", copied.positive, (), train.rows[0].source, "en")
    kept = Rows([*every, again], held_out=True).rows
    assert copied not in kept
    assert len(kept) == len(held.rows) - 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("language", "product")])
def test_the_same_passage_stands_in_both_documents_of_the_pair(kind: str) -> None:
    for side in sides():
        for at in range(12):
            made = side.contrast(f"r{at}", kind, held_wording=side.held_out, seed=1)
            row = next(row for row in side.rows if row.query == made.query)
            pair = [made.documents[place] for place in (made.first, made.second)]
            assert pair[0] != pair[1]
            for text in pair:
                assert all(part.strip() in text for part in re.split(r"(?<=\.) ", row.positive))
            aims = {case.name: case.targets for case in made.cases}
            assert aims["for"][made.first] > aims["for"][made.second]
            assert aims["against"][made.first] < aims["against"][made.second]
            assert aims["none"] == aims["beside"]
            for text, facts in zip(made.documents, made.facts, strict=True):
                assert facts.on_topic == (text in pair)


def test_a_query_of_two_languages_wants_the_passage_of_the_named_one() -> None:
    train, _ = sides()
    names = {"en": "English", "de": "German", "fr": "French", "nl": "Dutch", "it": "Italian"}
    names["sv"] = "Swedish"
    for at in range(40):
        made = train.contrast(f"l{at}", "language", held_wording=False, seed=1)
        by_text = {row.positive: names[row.language] for row in train.rows}
        one, other = (
            next(name for text, name in by_text.items() if text in made.documents[place])
            for place in (made.first, made.second)
        )
        assert one != other
        assert one in made.case("for").instruction
        asked = [row.query for row in train.rows if row.query in made.query]
        assert len(asked) == 2


def test_a_query_of_two_products_names_them_in_the_documents() -> None:
    train, _ = sides()
    for at in range(40):
        made = train.contrast(f"p{at}", "product", held_wording=False, seed=1)
        product = made.facts[made.first].labels["product"]
        assert product.lower() in made.case("for").instruction.lower()
        assert product in made.documents[made.first]
        assert product not in made.documents[made.second]


def test_kinds_that_the_rows_do_not_allow_are_left_out() -> None:
    plain = [Row(row.query, row.positive, (), "letters", "") for row in rows()]
    side = Rows(plain, held_out=plain[0].is_held_out)
    assert not {"language", "product"} & set(side.kinds())
    for at, kind in enumerate(side.kinds()):
        assert len(side.contrast(f"k{at}", kind, held_wording=False, seed=0).documents) >= 3


def test_the_share_of_rows_is_kept() -> None:
    made = list(contrasts(Plan(200, rows_share=0.25), rows()))
    assert sum(each.domain.startswith("docs:") for each in made) == 50
    assert made == list(contrasts(Plan(200, rows_share=0.25), rows()))
    only = contrasts(Plan(20, rows_share=1.0, kinds=("language",)), rows())
    assert {each.kind for each in only} == {"language"}


def written(folder: Path, *records: Any) -> Path:
    path = folder / "rows.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for record in records:
            file.write((record if isinstance(record, str) else json.dumps(record)) + "\n")
    return path


def test_rows_are_read_and_those_of_no_usable_length_left_out(tmp_path: Path) -> None:
    good = "A passage of a usable length, which says what the query asks about."
    path = written(
        tmp_path,
        {"query": " q1 ", "positives": ["short", good], "negatives": [good, good + " Not."]},
        {"query": "q2", "positives": ["x" * (LONGEST + 1)], "source": "docs:a/some_thing.js#faq"},
        {"query": "q" * 201, "positives": [good]},
        {"query": "q3", "positives": [good], "source": "docs:a/some_thing.js#faq", "lang": "de"},
    )
    first, second = read_rows([path])
    assert first == Row("q1", good, (good + " Not.",), "rows", "")
    assert (second.product, second.language) == ("some thing js", "de")


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ("{not json", "Line 1 of .*rows.jsonl.gz is not JSON"),
        ([1], "Line 1 of .*rows.jsonl.gz is no JSON object"),
        ({"query": "q"}, "has no positives"),
        ({"query": " ", "positives": []}, "Line 1 of rows.jsonl.gz: the query should be text"),
        ({"query": 3, "positives": []}, "the query should be text and not empty"),
        ({"query": "q", "positives": "text"}, "positives should be a list of texts"),
        ({"query": "q", "positives": [], "negatives": [3]}, "negatives should be a list of texts"),
        (
            {"query": "\ud800", "positives": ["x" * 50]},
            "Line 1 of rows.jsonl.gz holds no valid Uni",
        ),
        ({"query": "q", "positives": ["x" * 50], "lang": 5}, "source and lang should be texts"),
    ],
)
def test_a_bad_row_is_refused_in_a_sentence(tmp_path: Path, record: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_rows([written(tmp_path, record)])


def test_rows_without_a_usable_passage_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, {"query": "q", "positives": ["short"]})
    assert read_rows([path]) == []
    only_one_side = [row for row in rows() if not row.is_held_out]
    with pytest.raises(BadInput, match="fewer than two usable passages of a held-out source"):
        list(contrasts(Plan(4, split="held_out"), only_one_side))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.jsonl cannot be read"):
        read_rows([tmp_path / "nowhere.jsonl"])
