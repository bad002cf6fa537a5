"""The tools for what is there: list_collections, read_document, add_document."""

from __future__ import annotations

from django.db.models import Count
from pydantic import Field

from searchapp.ingest import adding
from searchapp.ingest.adding import PagedText
from searchapp.ingest.paged import PAGE_END, page_span
from searchapp.models import Document, DocumentText, Scope

from ..auth import Caller
from ..collection_names import name_of, named
from ..refusals import Refusal
from ..v1.metadata import refused_metadata
from ..v1.records import index_statuses
from ..v1.schemas import Name, Text
from .tools import Asked, Record, tool

MAX_COLLECTIONS = 200
MAX_DESCRIPTION = 300
READ_CHARACTERS = 8000
MAX_READ_CHARACTERS = 40_000
# Offsets beyond any text; PostgreSQL's own numbers end here.
MAX_OFFSET = 2**31 - 1
_WAITING = "It is not read yet. Try again later."
_NO_TEXT = {
    "not_parsed": _WAITING,
    "parsing": _WAITING,
    "parsing_failed": "Its file could not be read, so there is no text. Trying again is of no use.",
}


class ListCollections(Asked):
    pass


class ReadDocument(Asked):
    collection: Text
    path: Text
    page: int | None = Field(
        None, ge=1, le=MAX_OFFSET, description="Only this page, counted from 1."
    )
    start: int = Field(
        0, ge=0, le=MAX_OFFSET, description="The character to begin at, of the document or page."
    )
    length: int = Field(READ_CHARACTERS, ge=1, le=MAX_READ_CHARACTERS)


class AddDocument(Asked):
    collection: Text
    path: Name = Field(description="Names the document in the collection, like notes/2026/may.md")
    text: str = Field(min_length=1)
    metadata: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="Texts by name; lists of texts under names that begin “list:”. “title” is the "
        "document's title.",
    )
    overwrite: bool = Field(False, description="Replace the document of this path.")


@tool("List collections", ListCollections, Scope.SEARCH, Scope.INGEST)
def list_collections(caller: Caller, asked: ListCollections) -> Record | Refusal:
    """Lists the collections that can be searched, with what they hold. Begin here: the other tools
    want the `name` of one."""
    rows = list(caller.collections.order_by("name", "pk")[: MAX_COLLECTIONS + 1])
    shown = rows[:MAX_COLLECTIONS]
    counted = Document.objects.filter(collection__in=[row.pk for row in shown])
    counts = dict(counted.order_by().values_list("collection").annotate(n=Count("pk")))
    addable: set[int] = set()
    if caller.lacks(Scope.INGEST) is None:
        addable = set(caller.usable(Scope.INGEST).values_list("pk", flat=True))
    found: Record = {
        "collections": [
            {
                "name": name_of(row),
                "title": row.name,
                "description": row.description[:MAX_DESCRIPTION],
                "language": row.language,
                "documents": counts.get(row.pk, 0),
                "may_add": row.pk in addable,
            }
            for row in shown
        ]
    }
    return found | ({"more": True} if len(rows) > len(shown) else {})


@tool("Read a document", ReadDocument, Scope.SEARCH, Scope.INGEST)
def read_document(caller: Caller, asked: ReadDocument) -> Record | Refusal:
    """Reads the text of a document, or of one of its pages. A long text comes in parts: where there
    is a `next_start`, call again with it as `start`."""
    collection = named(caller, asked.collection)
    if isinstance(collection, Refusal):
        return collection
    rows = Document.objects.filter(collection=collection, path=asked.path)
    document = rows.select_related("content", "upload").first()
    if document is None:
        sentence = f"There is no document “{asked.path[:200]}” in “{asked.collection[:200]}”."
        return Refusal(404, "unknown-document", sentence)
    kept = getattr(document, "content", None)
    if kept is None:
        status = index_statuses([document])[document.pk]
        return Refusal(409, "no-text", _NO_TEXT.get(status, "It holds no text."))
    text = _page(kept, asked.page)
    if isinstance(text, Refusal):
        return text
    end = min(asked.start + asked.length, len(text))
    found: Record = {
        "path": document.path,
        "title": document.title or document.path,
        "metadata": document.metadata,
        "pages": document.page_count,
        "characters": len(text),
        "start": asked.start,
        "text": text[asked.start : end],
    }
    if asked.page is not None:
        found["page"] = asked.page
    return found | ({"next_start": end} if end < len(text) else {})


@tool("Add a document", AddDocument, Scope.INGEST, changes=True)
def add_document(caller: Caller, asked: AddDocument) -> Record | Refusal:
    """Adds a text to a collection under a path. It can be found by its words at once, and by its
    meaning soon after. A path that is taken is refused unless `overwrite` is true."""
    collection = named(caller, asked.collection, Scope.INGEST)
    if isinstance(collection, Refusal):
        return collection
    if refusal := refused_metadata(asked.metadata):
        return refusal
    caller.meter.bytes += len(asked.text.encode())
    outcome = adding.add_text(
        collection, asked.path, PagedText(asked.text), asked.metadata, overwrite=asked.overwrite
    )
    if outcome == "exists":
        sentence = f"There is a document “{asked.path[:200]}” already; overwrite would replace it."
        return Refusal(409, "exists", sentence)
    return {"path": asked.path, "outcome": outcome}


def _page(kept: DocumentText, page: int | None) -> str | Refusal:
    if page is None:
        return kept.text
    starts = kept.page_starts
    if page > len(starts):
        return Refusal(
            404, "unknown-page", f"This document has no page {page}; it has {len(starts)}."
        )
    begin, end = page_span(len(kept.text), starts, page - 1)
    return kept.text[begin:end].removesuffix(PAGE_END)
