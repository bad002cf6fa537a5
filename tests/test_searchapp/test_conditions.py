"""Metadata conditions: what they let pass, that an index answers them, and what they refuse."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from django.db import connection

from searchapp.models import Collection, Document
from searchapp.search.conditions import BadFilter, condition_sql
from searchapp.search.filters import read_filters
from tests.shelves import make_collection

DOCUMENTS: dict[str, dict[str, Any]] = {
    "heron": {"place": "pond", "date": "2024-05-01", "list:tags": ["bird", "grey"]},
    "owl": {"place": "barn", "date": "2023-11-30", "list:tags": ["bird"]},
    "boat": {"place": "sea", "list:tags": []},
    "nothing": {},
    "odd": {"place": "Pond", "date": "ä", "$eq": "x", 'a"b': "it's 100%", "n": ["list"]},
}

CASES: list[tuple[Any, str]] = [
    ({}, "boat heron nothing odd owl"),
    ({"place": "pond"}, "heron"),
    ({"place": {"$eq": "pond"}}, "heron"),
    ({"place": {"$ne": "pond"}}, "boat nothing odd owl"),
    ({"date": {"$gt": "2023-11-30"}}, "heron odd"),
    ({"date": {"$gte": "2023-11-30", "$lt": "2025"}}, "heron owl"),
    ({"date": {"$lte": "2023-11-30"}}, "owl"),
    ({"date": {"$lt": "2"}}, ""),
    ({"place": {"$in": ["sea", "barn", "nowhere"]}}, "boat owl"),
    ({"place": {"$in": []}}, ""),
    ({"place": {"$nin": ["sea", "barn"]}}, "heron nothing odd"),
    ({"place": {"$nin": []}}, "boat heron nothing odd owl"),
    ({"list:tags": {"$in": ["grey", "bird"]}}, "heron owl"),
    ({"list:tags": {"$nin": ["grey"]}}, "boat nothing odd owl"),
    ({"tags": {"$in": ["bird"]}}, ""),
    ({"n": {"$eq": "list"}}, ""),
    ({"n": {"$gte": "["}}, ""),
    ({'a"b': "it's 100%"}, "odd"),
    ({"$and": [{"place": "pond"}, {"list:tags": {"$in": ["grey"]}}]}, "heron"),
    ({"$or": [{"place": "pond"}, {"$and": [{"date": {"$lt": "2024"}}]}]}, "heron owl"),
    ({"$and": []}, "boat heron nothing odd owl"),
    ({"$or": []}, ""),
    ({"place": "pond", "date": {"$gt": "2024"}}, "heron"),
    ({"$or": [{"place": {"$eq": "sea"}}, {"place": {"$ne": "pond"}}]}, "boat nothing odd owl"),
]

BAD: list[Any] = [
    [],
    "x",
    {"place": {"$like": "x"}},
    {"place": {}},
    {"place": 7},
    {"place": None},
    {"place": ["pond"]},
    {"place": {"$eq": 7}},
    {"place": {"$eq": None}},
    {"place": {"$eq": ["x"]}},
    {"place": {"$in": "x"}},
    {"place": {"$in": [1]}},
    {"place": {"$gt": True}},
    {"list:tags": {"$eq": "x"}},
    {"list:tags": "x"},
    {"$and": {"place": "x"}},
    {"$or": "x"},
    {"$or": [7]},
    {"$not": {"place": "x"}},
    {"$eq": "x"},
    {"a\0b": "x"},
    {"a": "x\0"},
    {"a": "\ud800"},
    {"a": {"$in": ["x"] * 3000}},
    {f"a{n}": "x" for n in range(300)},
]


@pytest.fixture
def shelf(db: None) -> Collection:
    collection = make_collection("shelf")
    Document.objects.bulk_create(
        Document(collection=collection, path=path, metadata=metadata)
        for path, metadata in DOCUMENTS.items()
    )
    return collection


def passing(form: Any) -> set[str]:
    condition, params = condition_sql(form, "searchapp_document")
    rows = Document.objects.extra(where=[condition], params=params)
    return set(rows.values_list("path", flat=True))


@pytest.mark.parametrize(("form", "expected"), CASES, ids=lambda value: str(value)[:60])
def test_what_passes(shelf: Collection, form: Any, expected: str) -> None:
    assert passing(form) == set(expected.split())


def test_nested_conditions_are_those_of_sets(shelf: Collection) -> None:
    rng = random.Random(7)

    def grown(depth: int) -> tuple[Any, set[str]]:
        if depth == 0:
            form, names = rng.choice(CASES)
            return form, set(names.split())
        word = rng.choice(["$and", "$or"])
        parts = [grown(depth - 1) for _ in range(rng.randint(1, 3))]
        sets = [names for _, names in parts]
        both = set.intersection(*sets) if word == "$and" else set.union(*sets)
        return {word: [form for form, _ in parts]}, both

    for _ in range(60):
        form, expected = grown(rng.randint(1, 3))
        assert passing(form) == expected, form


@pytest.mark.parametrize("form", BAD, ids=lambda value: str(value)[:40])
def test_what_is_refused_has_a_sentence(form: Any) -> None:
    with pytest.raises(BadFilter) as refusal:
        condition_sql(form, "d")
    assert str(refusal.value).endswith((".", "}.", "none."))


def test_a_filter_nested_without_end_is_refused() -> None:
    form: Any = {"a": "x"}
    for _ in range(50):
        form = {"$and": [form]}
    with pytest.raises(BadFilter, match="deep"):
        condition_sql(form, "d")


def test_filters_come_back_from_a_stored_search() -> None:
    form = {"where": {"place": {"$in": ["a", "b"]}}, "metadata": {"x": ["y"]}}
    found = read_filters(form)
    assert read_filters(json.loads(json.dumps(found.as_json()))) == found and bool(found)


@pytest.mark.parametrize(
    "form",
    [
        {"place": "p7"},
        {"place": {"$in": ["p7", "p9"]}},
        {"list:tags": {"$in": ["t7", "t9"]}},
        {"$or": [{"place": "p7"}, {"list:tags": {"$in": ["t9"]}}]},
        {"$and": [{"place": "p7"}, {"date": {"$gt": "2"}}]},
    ],
    ids=str,
)
def test_the_index_on_metadata_answers_them(db: None, form: Any) -> None:
    collection = make_collection("shelf")
    Document.objects.bulk_create(
        Document(
            collection=collection,
            path=str(n),
            metadata={"place": f"p{n % 500}", "list:tags": [f"t{n % 700}"], "date": str(n)},
        )
        for n in range(5000)
    )
    condition, params = condition_sql(form, "d")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE searchapp_document")
        cursor.execute(f"EXPLAIN SELECT 1 FROM searchapp_document d WHERE {condition}", params)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Bitmap Index Scan on document_metadata" in plan and "Seq Scan" not in plan, plan
