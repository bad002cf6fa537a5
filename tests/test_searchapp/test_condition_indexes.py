"""Ranges of metadata through the index on attributes: nothing but the index changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchapp.models import Collection, Document, DocumentAttribute
from searchapp.models.attributes import MAX_NAME, MAX_TEXT, SEPARATOR
from searchapp.search import conditions, erasing
from searchapp.search.conditions import condition_sql
from searchapp.search.filters import matching_passages, read_filters
from tests.shelves import add_document, make_collection

# --- the rows ----------------------------------------------------------------------------------


def rows() -> list[tuple[int, str, int]]:
    """All there are."""
    found = DocumentAttribute.objects.values_list("collection_id", "entry", "document_id")
    return sorted(found)


def rows_of_documents() -> list[tuple[int, str, int]]:
    """All there should be, by the documents' metadata."""
    return sorted(
        (document.collection_id, f"{name}{SEPARATOR}{text[:MAX_TEXT]}", document.pk)
        for document in Document.objects.all()
        if isinstance(document.metadata, dict)
        for name, text in document.metadata.items()
        if isinstance(text, str) and len(name) <= MAX_NAME and SEPARATOR not in name
    )


METADATA: list[Any] = [
    {"place": "pond", "date": "2024", "list:tags": ["bird"], "": "", "empty": ""},
    {"long": "x" * 5000, "🦆" * MAX_NAME: "🦆" * 300, "y" * (MAX_NAME + 1): "z"},
    {f"a{SEPARATOR}b": "c", "n": 7, "deep": {"place": "pond"}, "nothing": None, "yes": True},
    {},
    ["a", "b"],
    "pond",
    None,
]


def add_all(collection: Collection) -> list[Document]:
    return Document.objects.bulk_create(
        Document(collection=collection, path=str(n), metadata=each)
        for n, each in enumerate(METADATA)
        if each is not None
    )


def test_every_way_to_change_a_document_keeps_its_rows(db: None) -> None:
    shelf, other = make_collection("shelf"), make_collection("other")
    documents = add_all(shelf)
    assert len(rows()) == 6 and rows() == rows_of_documents()

    first = documents[0]
    Document.objects.filter(pk=first.pk).update(metadata={"place": "sea", "new": "1"})
    assert rows() == rows_of_documents()
    first.refresh_from_db()
    first.metadata["list:tags"] = ["x"]
    first.metadata["new"] = "2"
    first.save()
    assert (shelf.pk, f"new{SEPARATOR}2", first.pk) in rows() and rows() == rows_of_documents()
    Document.objects.filter(pk=first.pk).update(title="other", status="ready")
    Document.objects.filter(pk=documents[3].pk).update(metadata={"place": "was empty"})
    assert rows() == rows_of_documents()

    again = Document(collection=shelf, path="1", metadata={"place": "conflict"})
    Document.objects.bulk_create(
        [again, Document(collection=shelf, path="new", metadata={"place": "new"})],
        update_conflicts=True,
        unique_fields=["collection", "path"],
        update_fields=["metadata"],
    )
    assert rows() == rows_of_documents()
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE searchapp_document SET metadata = metadata || '{"all": "x"}'
            WHERE jsonb_typeof(metadata) = 'object'""")
    assert rows() == rows_of_documents()

    Document.objects.filter(pk__in=[each.pk for each in documents[:2]]).update(collection=other)
    assert {row[0] for row in rows()} == {shelf.pk, other.pk} and rows() == rows_of_documents()
    assert erasing.delete_documents(other, [documents[1].pk]) == 1
    documents[2].delete()
    assert rows() == rows_of_documents()
    erasing.erase_collection(shelf)
    assert {row[0] for row in rows()} == {other.pk} and rows() == rows_of_documents()
    Collection.objects.get(pk=other.pk).delete()
    assert rows() == []


def test_the_migration_brings_rows_for_documents_that_are_there_and_goes_back(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    leaves = MigrationExecutor(connection).loader.graph.leaf_nodes("searchapp")
    MigrationExecutor(connection).migrate([("searchapp", "0010_api_documents")])
    assert "searchapp_documentattribute" not in connection.introspection.table_names()
    shelf = make_collection("shelf")
    add_all(shelf)
    Document.objects.filter(path="0").update(metadata={"place": "sea"})
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    MigrationExecutor(connection).migrate(leaves)
    assert len(rows()) == 3 and rows() == rows_of_documents()
    Document.objects.all().delete()
    assert rows() == []


# --- what passes -------------------------------------------------------------------------------

NAMES = ["a", "b", "ab", "ä", "", f"a{SEPARATOR}", "n" * MAX_NAME, "n" * (MAX_NAME + 1)]
LISTS = ["list:t", "list:u"]
ORDERS = {
    "$gt": lambda held, text: held > text,
    "$gte": lambda held, text: held >= text,
    "$lt": lambda held, text: held < text,
    "$lte": lambda held, text: held <= text,
}

texts = st.one_of(
    st.sampled_from(["", "a", "b", "2024", "2024-05", "Z", SEPARATOR, "\x02", "~", "é", "￿", "🦆"]),
    # Around the length at which rows are cut.
    st.builds(
        lambda count, rest: "x" * (MAX_TEXT - count) + rest,
        st.integers(0, 2),
        st.sampled_from(["", "a", "b", "aa", "ab", "bb", "🦆", "é🦆"]),
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
)
odd_values = st.sampled_from([None, 7, True, ["a"], {"a": "b"}])
metadata = st.dictionaries(
    st.sampled_from(NAMES), st.one_of(texts, texts, texts, odd_values), max_size=4
).flatmap(
    lambda plain: st.dictionaries(
        st.sampled_from(LISTS), st.one_of(st.lists(texts, max_size=3), texts), max_size=1
    ).map(lambda lists: {**plain, **lists})
)
plain_tests = st.dictionaries(st.sampled_from([*ORDERS, "$eq", "$ne"]), texts, min_size=1)
list_tests = st.dictionaries(
    st.sampled_from(["$in", "$nin"]), st.lists(texts, max_size=3), min_size=1
)
leaves = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), st.one_of(plain_tests, list_tests, texts), max_size=3),
    st.dictionaries(st.sampled_from(LISTS), list_tests, max_size=2),
)
forms = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda word, parts, more: {**more, word: parts},
        st.sampled_from(["$and", "$or"]),
        st.lists(inner, max_size=4),
        leaves,
    ),
    max_leaves=8,
)


def passes(held: Mapping[str, Any], form: Mapping[str, Any]) -> bool:
    """The filter as Python reads it."""
    return all(_passes(held, name, asked) for name, asked in form.items())


def _passes(held: Mapping[str, Any], name: str, asked: Any) -> bool:
    if name == "$and":
        return all(passes(held, each) for each in asked)
    if name == "$or":
        return any(passes(held, each) for each in asked)
    asked = {"$eq": asked} if isinstance(asked, str) else asked
    return all(_holds(held.get(name), name, operator, value) for operator, value in asked.items())


def _holds(value: Any, name: str, operator: str, asked: Any) -> bool:
    if operator in ORDERS:
        return isinstance(value, str) and ORDERS[operator](value, asked)
    if operator in {"$eq", "$ne"}:
        return (value == asked) == (operator == "$eq")
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) != name.startswith("list:"):
        values = []
    return any(each in values for each in asked) == (operator == "$in")


def passing(form: Any, collection: Collection, *, known: bool) -> set[int]:
    condition, params = condition_sql(form, "d", collection.pk if known else None)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT d.id FROM searchapp_document d WHERE d.collection_id = %s AND ({condition})",
            [collection.pk, *params],
        )
        ids = [row[0] for row in cursor.fetchall()]
    assert len(ids) == len(set(ids))
    return set(ids)


def test_any_filter_lets_pass_what_python_does_with_the_index_and_without(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, other = make_collection("shelf"), make_collection("other")

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(metadata, min_size=1, max_size=8),
        st.lists(forms, min_size=1, max_size=5),
        st.sampled_from([0, 1, 2, 5000]),
    )
    def check(contents: list[dict[str, Any]], asked: list[Any], short: int) -> None:
        monkeypatch.setattr(conditions, "SHORT_RANGE", short)
        Document.objects.all().delete()
        documents = Document.objects.bulk_create(
            Document(collection=collection, path=str(n), metadata=each)
            for n, each in enumerate(contents)
            for collection in (shelf, other)
        )
        for form in asked:
            expected = {
                each.pk
                for each in documents
                if each.collection_id == shelf.pk and passes(each.metadata, form)
            }
            assert passing(form, shelf, known=False) == expected, form
            assert passing(form, shelf, known=True) == expected, form

    check()


def test_texts_that_rows_cut_are_compared_whole(db: None) -> None:
    shelf = make_collection("shelf")
    stem = "x" * (MAX_TEXT - 2)
    values = [
        stem + rest for rest in ["x", "xx", "xxa", "xxb", "xxbb", "xy", "xé🦆", "xé🦆🦆", "y"]
    ]
    documents = Document.objects.bulk_create(
        Document(collection=shelf, path=value, metadata={"a": value}) for value in values
    )
    for operator, holds in ORDERS.items():
        for text in values:
            form = {"a": {operator: text}}
            expected = {each.pk for each in documents if holds(each.path, text)}
            assert passing(form, shelf, known=True) == expected, form
            either = {"$or": [form, {"a": stem}]}
            assert passing(either, shelf, known=True) == expected, form


# --- which index answers -----------------------------------------------------------------------

COUNT = 20_000
DAY = {"date": {"$gte": "2020-05-01", "$lt": "2020-05-02"}}
RANGES: list[tuple[Any, set[str]]] = [
    ({"date": {"$gt": "2029-12"}}, {"attribute"}),
    ({"date": {"$gte": "2029-12"}}, {"attribute"}),
    ({"date": {"$lt": "2015-01-03"}}, {"attribute"}),
    ({"date": {"$lte": "2015-01-03"}}, {"attribute"}),
    (DAY, {"attribute"}),
    ({"$and": [{"date": {"$gte": "2020-05-01"}}, {"date": {"$lt": "2020-05-02"}}]}, {"attribute"}),
    ({"abstract": {"$gte": "00", "$lt": "00" + "5" * MAX_TEXT}}, {"attribute"}),
    ({"missing": {"$gte": "2024"}}, {"attribute"}),
    ({"place": "p7"}, {"metadata"}),
    ({"place": {"$in": ["p7", "p9"]}}, {"metadata"}),
    ({"list:tags": {"$in": ["t7", "t9"]}}, {"metadata"}),
    ({**DAY, "place": {"$ne": "p7"}, "author": {"$nin": ["a1"]}}, {"attribute"}),
    ({"$or": [DAY, {"author": {"$gte": "a999"}}]}, {"attribute"}),
    ({"$or": [DAY, {"place": "p7"}, {"list:tags": {"$in": ["t7"]}}]}, {"attribute", "metadata"}),
    ({"$or": [{**DAY, "author": {"$ne": "a1"}}, {"place": "p7"}]}, {"attribute", "metadata"}),
    ({"$and": [{"$or": [DAY, {"place": "p7"}]}, {"year": {"$gte": "2016"}}]}, {"attribute"}),
    ({"place": "p7", "date": {"$gte": "2016"}}, {"metadata"}),
]
INDEXES = {
    "attribute": "searchapp_documentattribute_pkey",
    "metadata": "document_metadata",
}


def shelf_of_many() -> Collection:
    """Documents of two collections, spread over ten years."""
    shelf, other = make_collection("shelf"), make_collection("other")
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO searchapp_document (uid, collection_id, path, title, metadata, media_type,
                size_bytes, passage_count, status, created_at, updated_at)
            SELECT gen_random_uuid(), (ARRAY[%s, %s])[1 + (n %% 10 = 0)::int], n::text, '',
                jsonb_build_object(
                    'place', 'p' || n %% 500, 'author', 'a' || n %% 1000,
                    'year', (2015 + n %% 10)::text, 'abstract', repeat(md5(n::text), 8),
                    'date', to_char(timestamp '2015-01-01' + n * interval '4 hours 22 minutes',
                        'YYYY-MM-DD"T"HH24:MI:SS'),
                    'list:tags', jsonb_build_array('t' || n %% 700)
                ), 'text/plain', 1, 0, 'ready', now(), now()
            FROM generate_series(1, %s) n
            """,
            [shelf.pk, other.pk, COUNT],
        )
        cursor.execute("ANALYZE searchapp_document")
        cursor.execute("ANALYZE searchapp_documentattribute")
    return shelf


def plan_of(query: str, params: list[Any]) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}", params)
        return "\n".join(row[0] for row in cursor.fetchall())


def test_an_index_answers_each_selective_condition_alone_and_combined(db: None) -> None:
    shelf = shelf_of_many()
    for form, wanted in RANGES:
        condition, params = condition_sql(form, "d", shelf.pk)
        plan = plan_of(
            f"SELECT d.path FROM searchapp_document d WHERE d.collection_id = %s AND ({condition})",
            [shelf.pk, *params],
        )
        used = {name for name, index in INDEXES.items() if f"{index} " in f"{plan} "}
        assert wanted <= used and "Seq Scan" not in plan, (form, plan)
        assert passing(form, shelf, known=True) == passing(form, shelf, known=False), form

    long = {"date": {"$gte": "2016"}}
    condition, params = condition_sql(long, "d", shelf.pk)
    assert "searchapp_documentattribute" not in condition
    in_order = 'WHERE d.collection_id = %s AND {} ORDER BY d.path COLLATE "C" LIMIT 10'
    plan = plan_of(
        f"SELECT d.path FROM searchapp_document d {in_order.format(condition)}",
        [shelf.pk, *params],
    )
    assert "document_path_bytes" in plan and "Sort" not in plan, plan


def test_a_search_finds_passages_by_a_range_of_its_own_collection(db: None) -> None:
    shelf, other = make_collection("shelf"), make_collection("other")
    ids = [
        add_document(collection, f"{n}", ["Some text."], metadata={"date": f"{2015 + n}"})
        .passages.get()
        .pk
        for collection in (shelf, other)
        for n in range(5)
    ]
    filters = read_filters({"where": {"$or": [{"date": {"$lt": "2016"}}, {"date": "2018"}]}})
    assert matching_passages(shelf, None, filters, ids).tolist() == [ids[0], ids[3]]
