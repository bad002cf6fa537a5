"""/api/v1/collections/…/documents: list, add, read, delete, and how far each is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from pydantic import Field as Limited

from searchapp.ingest import adding
from searchapp.ingest.adding import BadFile, PagedText
from searchapp.models import Collection, Document, DocumentText, Family, PendingVector, Scope
from searchapp.search.access import snapshot

from ..links import Links
from ..refusals import Refusal
from ..v1.documents import MAX_BODY_BYTES, by_path
from ..v1.metadata import Metadata, refused_metadata
from ..v1.records import index_statuses
from .endpoint import Answer, Answered, Call, endpoint
from .places import held, seen
from .schemas import Body, Nothing, Path, Query, Shown, Text

MOST_LISTED = 1000
DocumentState = Literal[
    "not_parsed",
    "parsing",
    "not_indexed",
    "indexing",
    "indexed",
    "parsing_failed",
    "indexing_failed",
]


class DocumentRecord(Shown):
    """`pages` is None for formats without pages. `message`: why it failed, or what was left out.
    `file_url` works without a key for some days."""

    uid: UUID
    path: str
    title: str
    metadata: dict[str, Any]
    media_type: str
    size_bytes: int
    pages: int | None
    passages: int
    status: DocumentState
    message: str
    created_at: datetime
    updated_at: datetime
    file_url: str


class DocumentList(Shown):
    """In the order of the bytes of their paths. `next_after`: where the next page begins, None
    on the last one."""

    documents: list[DocumentRecord]
    next_after: str | None


class Progress(Shown):
    """`passages_indexed` of `passages` have their vectors; words find all of them at once."""

    status: DocumentState
    message: str
    passages: int
    passages_indexed: int


class DocumentContent(Shown):
    """`page_starts`: the character at which each page begins; empty for formats without pages."""

    uid: UUID
    path: str
    text: str
    page_starts: list[int]


class Listed(Query):
    """`after`: paths behind this one; `prefix`: that begin so."""

    limit: int = Limited(100, ge=1, le=MOST_LISTED)
    after: Text | None = None
    prefix: Text = ""


class NewDocument(Body):
    """`text`, or `pages` of a text; the metadata's `title` is its title."""

    path: Path
    text: str | None = None
    pages: list[str] | None = None
    metadata: Metadata = {}
    overwrite: bool = False


class NewFile(Query):
    """`overwrite`: replaces the document of this path, which stays until the file is read."""

    path: Path
    overwrite: bool = False


@endpoint(
    "GET",
    "collections/<slug:slug>/documents",
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
    query=Listed,
    answer=DocumentList,
)
def list_documents(call: Call, asked: Listed, slug: str) -> Answer:
    """Documents in the order of their paths."""
    collection = seen(call.caller, slug)
    if isinstance(collection, Refusal):
        return collection
    rows = list(by_path(collection, asked.after, asked.prefix)[: asked.limit + 1])
    more, rows = len(rows) > asked.limit, rows[: asked.limit]
    return DocumentList(
        documents=_records(rows, call.links), next_after=rows[-1].path if more else None
    )


@endpoint(
    "POST",
    "collections/<slug:slug>/documents",
    Scope.INGEST,
    Family.DOCUMENTS,
    body=NewDocument,
    body_bytes=MAX_BODY_BYTES,
    answer=DocumentRecord,
    statuses=(201, 200),
    refusals=(409, 507),
)
def add_text(call: Call, asked: NewDocument, slug: str) -> Answer:
    """Adds a text, or the pages of one.
    Words find it when the call returns, meaning once its vectors are there. 409 when there is a
    document of this path, unless `overwrite` is set; then 200 and the old one is gone."""
    if (asked.text is None) == (asked.pages is None):
        return Refusal(400, "text-or-pages", "Send either a text or its pages.")
    content = PagedText(asked.text or "", asked.pages)

    def add(collection: Collection) -> adding.Outcome:
        return adding.add_text(
            collection, asked.path, content, asked.metadata, overwrite=asked.overwrite
        )

    return _added(call, slug, asked.path, asked.metadata, add)


@endpoint(
    "POST",
    "collections/<slug:slug>/files",
    Scope.INGEST,
    Family.DOCUMENTS,
    query=NewFile,
    raw=True,
    body_bytes=MAX_BODY_BYTES,
    answer=DocumentRecord,
    statuses=(201, 200),
    refusals=(400, 409, 507),
)
def add_file(call: Call, asked: NewFile, slug: str) -> Answer:
    """Adds a file: its bytes are the body.
    A worker reads it; the document's progress says how far that is. The path's suffix helps to
    tell the format."""

    def add(collection: Collection) -> adding.Outcome:
        user = call.caller.user
        return adding.add_file(
            collection, asked.path, call.raw, {}, user, overwrite=asked.overwrite
        )

    return _added(call, slug, asked.path, {}, add)


@endpoint(
    "GET",
    "collections/<slug:slug>/documents/<uuid:uid>",
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
    answer=DocumentRecord,
)
def read_document(call: Call, asked: Nothing, slug: str, uid: UUID) -> Answer:
    """What is known of one document, without its text."""
    found = _seen(call, slug, uid)
    return found if isinstance(found, Refusal) else _records([found], call.links)[0]


@endpoint(
    "GET",
    "collections/<slug:slug>/documents/<uuid:uid>/text",
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
    answer=DocumentContent,
)
def read_text(call: Call, asked: Nothing, slug: str, uid: UUID) -> Answer:
    """The text of a document; empty while its file waits to be read."""
    with snapshot():
        found = _seen(call, slug, uid)
        if isinstance(found, Refusal):
            return found
        kept = DocumentText.objects.filter(document=found).first()
    return DocumentContent(
        uid=found.uid,
        path=found.path,
        text=kept.text if kept is not None else "",
        page_starts=kept.page_starts if kept is not None else [],
    )


@endpoint(
    "GET",
    "collections/<slug:slug>/documents/<uuid:uid>/progress",
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
    answer=Progress,
)
def read_progress(call: Call, asked: Nothing, slug: str, uid: UUID) -> Answer:
    """How far a document is."""
    found = _seen(call, slug, uid)
    if isinstance(found, Refusal):
        return found
    waiting = PendingVector.objects.filter(passage__document=found).values("passage").distinct()
    return Progress(
        status=_state(index_statuses([found])[found.pk]),
        message=_message(found),
        passages=found.passage_count,
        passages_indexed=max(found.passage_count - waiting.count(), 0),
    )


@endpoint(
    "DELETE",
    "collections/<slug:slug>/documents/<uuid:uid>",
    Scope.INGEST,
    Family.DOCUMENTS,
    statuses=(204,),
)
def delete_document(call: Call, asked: Nothing, slug: str, uid: UUID) -> Answer:
    """Deletes a document; no search finds it any more."""
    collection = held(call.caller, slug, Scope.INGEST)
    if isinstance(collection, Refusal):
        return collection
    found = _document(collection, uid)
    if isinstance(found, Refusal):
        return found
    adding.delete_paths(collection, [found.path])
    return None


def _added(
    call: Call,
    slug: str,
    path: str,
    metadata: Metadata,
    add: Callable[[Collection], adding.Outcome],
) -> Answer:
    collection = held(call.caller, slug, Scope.INGEST)
    if isinstance(collection, Refusal):
        return collection
    if refusal := refused_metadata(metadata):
        return refusal
    try:
        outcome = add(collection)
    except BadFile as error:
        return Refusal(400, "bad-file", str(error))
    exists = f"There is a document “{path[:200]}” already; set overwrite to replace it."
    if outcome == "exists":
        return Refusal(409, "exists", exists)
    row = by_path(collection).filter(path=path).first()
    if row is None:
        return Refusal(409, "deleted", "Somebody deleted the document at the same moment.")
    return Answered(_records([row], call.links)[0], 201 if outcome == "added" else 200)


def _seen(call: Call, slug: str, uid: UUID) -> Document | Refusal:
    collection = seen(call.caller, slug)
    return collection if isinstance(collection, Refusal) else _document(collection, uid)


def _document(collection: Collection, uid: UUID) -> Document | Refusal:
    rows = Document.objects.filter(collection=collection, uid=uid).select_related("upload")
    return rows.first() or Refusal(404, "unknown-document", "There is no such document here.")


def _records(rows: list[Document], links: Links) -> list[DocumentRecord]:
    states = index_statuses(rows)
    return [
        DocumentRecord(
            uid=row.uid,
            path=row.path,
            title=row.title,
            metadata=row.metadata,
            media_type=row.media_type,
            size_bytes=row.size_bytes,
            pages=row.page_count,
            passages=row.passage_count,
            status=_state(states[row.pk]),
            message=_message(row),
            created_at=row.created_at,
            updated_at=row.updated_at,
            file_url=links.document(row.uid),
        )
        for row in rows
    ]


def _state(name: str) -> DocumentState:
    return cast(DocumentState, name)


def _message(row: Document) -> str:
    return row.upload.message if row.upload is not None else ""
