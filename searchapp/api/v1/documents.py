"""/v1/documents: add, update, delete, and what is there."""

from __future__ import annotations

from typing import Annotated, Literal

from django.db.models import F, QuerySet, Value
from django.db.models.functions import Collate
from pydantic import Field

from searchapp.ingest import adding
from searchapp.ingest.adding import BadFile, PagedText
from searchapp.models import Collection, Document, DocumentText, Family, Scope
from searchapp.search.access import snapshot

from ..collection_names import named
from ..refusals import Refusal
from . import updating
from .endpoint import Answer, Call, endpoint, json_response
from .metadata import Metadata, refused_metadata
from .records import index_statuses, records
from .schemas import SUCCESS, Asked, Name, Text

# Of one document with its base64; it is held in memory several times over while it is read.
MAX_BODY_BYTES = 100_000_000
MAX_LISTED = 1024
MAX_DELETED = 64


class TextContent(Asked):
    type: Literal["text"]
    text: str


class PagesContent(Asked):
    type: Literal["text-pages", "text-pages-unordered"]
    pages: list[str]


class FileContent(Asked):
    type: Literal["auto"]
    base64_data: str


Content = Annotated[TextContent | PagesContent | FileContent, Field(discriminator="type")]


class Add(Asked):
    collection_name: Text
    path: Name
    content: Content
    metadata: Metadata = Field(default_factory=dict)
    overwrite: bool = False


class Update(Asked):
    collection_name: Text
    path: Text
    metadata: Metadata | None = None
    index_status: Literal["not_parsed", "not_indexed"] | None = None


class Delete(Asked):
    collection_name: Text
    path: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_DELETED)]


class GetInfo(Asked):
    collection_name: Text
    path: Text
    include_content: bool = False


class GetInfoList(Asked):
    collection_name: Text
    limit: int = MAX_LISTED
    path_gt: Text | None = None
    path_prefix: Text | None = None


@endpoint(
    "documents/add-document",
    Add,
    Scope.INGEST,
    Family.DOCUMENTS,
    body_bytes=MAX_BODY_BYTES,
)
def add_document(call: Call, asked: Add) -> Answer:
    """A text, pages, or a file in base64 under a path; 200 when it replaced the one there."""
    collection = named(call.caller, asked.collection_name, Scope.INGEST)
    if isinstance(collection, Refusal):
        return collection
    if refusal := refused_metadata(asked.metadata):
        return refusal
    try:
        outcome = _added(call, collection, asked)
    except BadFile as error:
        return Refusal(400, "bad-file", str(error))
    if outcome == "exists":
        sentence = f"There is a document “{asked.path[:200]}” already; set overwrite to replace it."
        return Refusal(409, "exists", sentence)
    return json_response(SUCCESS, 201 if outcome == "added" else 200)


@endpoint("documents/update-document", Update, Scope.INGEST, Family.DOCUMENTS)
def update_document(call: Call, asked: Update) -> Answer:
    """Other metadata, or another try after a failure."""
    collection = named(call.caller, asked.collection_name, Scope.INGEST)
    if isinstance(collection, Refusal):
        return collection
    if asked.metadata is not None and (refusal := refused_metadata(asked.metadata)):
        return refusal
    refused = updating.update(collection, asked.path, asked.metadata, asked.index_status)
    return refused if refused is not None else SUCCESS


@endpoint("documents/delete-document", Delete, Scope.INGEST, Family.DOCUMENTS)
def delete_document(call: Call, asked: Delete) -> Answer:
    """Deletes one document or up to 64; 404 when none of them was there."""
    collection = named(call.caller, asked.collection_name, Scope.INGEST)
    if isinstance(collection, Refusal):
        return collection
    paths = [asked.path] if isinstance(asked.path, str) else asked.path
    deleted = adding.delete_paths(collection, paths)
    if not deleted:
        return no_document(paths[0])
    return {"deleted_paths": deleted}


@endpoint(
    "documents/get-document-info",
    GetInfo,
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
)
def get_document_info(call: Call, asked: GetInfo) -> Answer:
    """One document: its metadata, how far it is, its text if that is wanted."""
    with snapshot():
        found = found_document(call, asked.collection_name, asked.path)
        if isinstance(found, Refusal):
            return found
        (record,) = records([found], asked.collection_name, call.links)
        record["content"] = None
        status = index_statuses([found])[found.pk]
        if asked.include_content and status not in {"not_parsed", "parsing", "parsing_failed"}:
            texts = DocumentText.objects.filter(document=found).values_list("text", flat=True)
            record["content"] = texts.first() or ""
        return {"document": record}


@endpoint(
    "documents/get-document-info-list",
    GetInfoList,
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
)
def get_document_info_list(call: Call, asked: GetInfoList) -> Answer:
    """Documents in the byte order of their paths, from behind `path_gt`."""
    collection = named(call.caller, asked.collection_name)
    if isinstance(collection, Refusal):
        return collection
    if not 1 <= asked.limit <= MAX_LISTED:
        return Refusal(400, "bad-limit", f"limit must be from 1 to {MAX_LISTED}.")
    rows = list(by_path(collection, asked.path_gt, asked.path_prefix)[: asked.limit])
    listed = records(rows, asked.collection_name, call.links)
    for row, record in zip(rows, listed, strict=True):
        record["created_at"] = row.created_at.isoformat()
    return {"documents": listed}


def found_document(call: Call, collection_name: str, path: str) -> Document | Refusal:
    collection = named(call.caller, collection_name)
    if isinstance(collection, Refusal):
        return collection
    rows = Document.objects.filter(collection=collection, path=path).select_related("upload")
    return rows.first() or no_document(path)


def no_document(path: str) -> Refusal:
    return Refusal(404, "unknown-document", f"There is no document “{path[:200]}”.")


def by_path(
    collection: Collection, path_gt: str | None = None, path_prefix: str | None = None
) -> QuerySet[Document]:
    """In the order of the bytes of the paths, which the index document_path_bytes has."""
    rows = (
        Document.objects.filter(collection=collection)
        .annotate(path_bytes=Collate(F("path"), "C"))
        .order_by("path_bytes")
        .select_related("upload")
    )
    if path_gt is not None:
        rows = rows.filter(path_bytes__gt=Collate(Value(path_gt), "C"))
    if path_prefix:
        rows = rows.filter(path_bytes__startswith=path_prefix)
    return rows


def _added(call: Call, collection: Collection, asked: Add) -> adding.Outcome:
    content = asked.content
    if isinstance(content, FileContent):
        return adding.add_file(
            collection,
            asked.path,
            adding.decoded(content.base64_data),
            asked.metadata,
            call.caller.user,
            overwrite=asked.overwrite,
        )
    if isinstance(content, TextContent):
        text = PagedText(content.text)
    else:
        text = PagedText("", content.pages, in_order=content.type == "text-pages")
    return adding.add_text(collection, asked.path, text, asked.metadata, overwrite=asked.overwrite)
