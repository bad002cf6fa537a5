"""One statement writes what the models would have written, row by row."""

from __future__ import annotations

import uuid
from itertools import pairwise
from typing import Any

import pytest
from django.db import DataError, transaction
from django.utils import timezone

from searchapp.ingest.extract.records import ExtractedDocument
from searchapp.ingest.passages import PassageSpan
from searchapp.ingest.prepared import Prepared
from searchapp.ingest.rows import insert_documents
from searchapp.models import (
    Collection,
    Document,
    DocumentText,
    Passage,
    PendingVector,
    Upload,
    UploadBatch,
)
from searchapp.search.vectors import ensure_generation
from tests.shelves import make_collection

pytestmark = pytest.mark.django_db

TEXT = "Wind » \"quotes\" 'and' \\backslashes\\ 🦉 %s {braces}\n\tende"
METADATA: dict[str, Any] = {
    "size": 12345678901234567890,
    "share": 0.1,
    "tiny": 5e-324,
    "on": True,
    "none": None,
    "list:tags": ["ä", "'", '"', "\\u0041", "$1"],
    "deep": {"a": [{"b": {}}]},
}


@pytest.fixture
def collection() -> Collection:
    return make_collection("birds")


def entry(path: str, text: str = TEXT, spans: int = 2, **more: Any) -> Prepared:
    extracted = ExtractedDocument(
        path=path, text=text, page_starts=(0, 5), media_type="text/plain", size_bytes=len(text)
    )
    cuts = [len(text) * at // max(spans, 1) for at in range(spans + 1)]
    found = [
        PassageSpan(start, end, 1, 2, ("A › b", "c"), tokens=9) for start, end in pairwise(cuts)
    ]
    return Prepared(extracted, path, "Title", found, METADATA, **more)


def test_every_column_has_what_the_document_had(collection: Collection) -> None:
    batch = UploadBatch.objects.create(collection=collection)
    upload = Upload.objects.create(collection=collection, batch=batch, name="f", size_bytes=1)
    generation = ensure_generation(collection)
    given = [entry(f"{n}.txt", uid=uuid.uuid4() if n else None, spans=3 - n) for n in range(4)]
    before = timezone.now()
    with transaction.atomic():
        written = insert_documents(collection, upload, generation, given)
    assert [len(passages) for _, passages in written] == [3, 2, 1, 0]
    assert [pk for pk, _ in written] == sorted(pk for pk, _ in written)
    passage_ids = [pk for _, passages in written for pk in passages]
    assert passage_ids == sorted(passage_ids)
    for (document_id, passages), wanted in zip(written, given, strict=True):
        row = Document.objects.get(pk=document_id)
        assert wanted.uid is None or row.uid == wanted.uid
        assert before <= row.created_at == row.updated_at <= timezone.now()
        expected = Document(
            pk=row.pk,
            uid=row.uid,
            collection=collection,
            upload=upload,
            path=wanted.path,
            title="Title",
            metadata=METADATA,
            size_bytes=len(TEXT),
            page_count=2,
            passage_count=len(wanted.spans),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        assert same(row, expected)
        text = DocumentText.objects.get(pk=document_id)
        assert (text.text, text.page_starts) == (TEXT, [0, 5])
        for ordinal, (passage_id, span) in enumerate(zip(passages, wanted.spans, strict=True)):
            assert same(
                Passage.objects.get(pk=passage_id),
                Passage(
                    pk=passage_id,
                    collection=collection,
                    document=row,
                    ordinal=ordinal,
                    text=TEXT[span.start : span.end],
                    start=span.start,
                    end=span.end,
                    page_first=1,
                    page_last=2,
                    heading_path=["A › b", "c"],
                ),
            )
    waiting = PendingVector.objects.filter(generation=generation)
    assert sorted(waiting.values_list("passage_id", flat=True)) == passage_ids


def same(row: Any, expected: Any) -> bool:
    names = [field.attname for field in row._meta.concrete_fields]
    differing = [each for each in names if getattr(row, each) != getattr(expected, each)]
    assert not differing, differing
    return True


def test_nothing_waits_for_a_vector_without_a_generation(collection: Collection) -> None:
    ((_, passages),) = insert_documents(collection, None, None, [entry("a")])
    assert len(passages) == 2
    assert not PendingVector.objects.exists()
    assert Document.objects.get().upload_id is None


def test_no_documents_are_no_rows(collection: Collection) -> None:
    assert insert_documents(collection, None, None, []) == []


def test_a_long_text_arrives_whole(collection: Collection) -> None:
    text = ('"\\\n🦉' * 500_000)[:2_000_000]
    insert_documents(collection, None, None, [entry("long", text, spans=300)])
    assert DocumentText.objects.get().text == text
    parts = Passage.objects.order_by("ordinal").values_list("text", flat=True)
    assert "".join(parts) == text


def test_what_the_database_cannot_hold_is_an_error_of_data(collection: Collection) -> None:
    with pytest.raises(DataError), transaction.atomic():
        insert_documents(collection, None, None, [entry("nul", "a\0b")])
    assert not Document.objects.exists()
