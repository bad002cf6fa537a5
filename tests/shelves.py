"""A small indexed collection for tests of pages: real rows, real postings, hashed vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from searchapp.models import Collection, Document, DocumentStatus, DocumentText, Passage
from searchapp.models.corpus import AnyUser
from searchapp.search import segments, vectors
from tests.fakes import hashed_vector


def make_collection(slug: str = "library", *, user: AnyUser = None, **fields: Any) -> Collection:
    """A public collection with its vectors' generation, unless the fields say otherwise."""
    fields = {"name": slug.title(), "is_public": True, **fields}
    collection = Collection.objects.create_with_owner(slug=slug, user=user, **fields)
    vectors.ensure_generation(collection)
    collection.refresh_from_db()
    return collection


def add_document(
    collection: Collection,
    title: str,
    passages: Sequence[str],
    *,
    page_starts: Sequence[int] = (),
    heading_path: Sequence[str] = (),
    **fields: Any,
) -> Document:
    """A ready document whose text is the passages, one paragraph each."""
    text = "\n\n".join(passages)
    fields = {"path": f"{title}.txt", "status": DocumentStatus.READY, **fields}
    document = Document.objects.create(
        collection=collection,
        title=title,
        passage_count=len(passages),
        size_bytes=len(text.encode()),
        **fields,
    )
    DocumentText.objects.create(document=document, text=text, page_starts=list(page_starts))
    rows = []
    start = 0
    for ordinal, each in enumerate(passages):
        page = sum(1 for first in page_starts if first <= start) or None
        rows.append(
            Passage(
                collection=collection,
                document=document,
                ordinal=ordinal,
                text=each,
                start=start,
                end=start + len(each),
                page_first=page,
                page_last=page,
                heading_path=list(heading_path),
            )
        )
        start += len(each) + 2
    Passage.objects.bulk_create(rows)
    segments.index_passages(collection, [(row.pk, row.indexed_text) for row in rows])
    generation = collection.active_generation
    if generation is not None:
        vectors.write_vectors(
            generation, [row.pk for row in rows], [hashed_vector(row.indexed_text) for row in rows]
        )
    return document
