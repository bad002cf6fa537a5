"""Documents that programs add, change and delete by their path. A text is searchable by its words
when the call returns; a file is read by a worker first."""

from __future__ import annotations

import base64
import binascii
import io
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from django.core.files.storage import default_storage
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from searchapp.models import (
    Collection,
    Document,
    DocumentStatus,
    Generation,
    Upload,
    UploadBatch,
    UploadState,
)
from searchapp.models.corpus import AnyUser
from searchapp.models.uploads import OPEN_STATES
from searchapp.search import erasing, vectors

from .extract.records import ExtractedDocument
from .finishing import finish_indexed, settle
from .joint import Joint
from .names import safe_name
from .paged import joined, split_pages
from .passages import fit_title, split
from .prepared import Prepared
from .queueing import enqueue_ingest, kick_embedding
from .receive import store
from .writing import passage_measure, write_documents

# A deadlock ends one of two; a worker may write the path at the same moment.
_TRIES = 5
# The first of the two keys of an advisory lock.
_ADDING = 4_202

# Dividing a shorter text into passages costs no more than asking first whether it is wanted.
_LONG = 20_000

Outcome = Literal["added", "replaced", "exists"]
Done = TypeVar("Done")


@dataclass(frozen=True)
class PagedText:
    """`pages` None: one text without pages. `in_order`: pages are read one after the other."""

    text: str
    pages: Sequence[str] | None = None
    in_order: bool = True

    @property
    def length(self) -> int:
        """In characters."""
        return len(self.text) if self.pages is None else sum(map(len, self.pages))


@dataclass(frozen=True)
class _Addition:
    """A text that is ready to be written."""

    collection: Collection
    generation: Generation
    prepared: Prepared
    overwrite: bool


class BadFile(ValueError):
    """The bytes cannot be taken; the message is a sentence for whoever sent them."""


def add_text(
    collection: Collection,
    path: str,
    content: PagedText,
    metadata: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Outcome:
    """Writes the document in one transaction; a predecessor goes in the same one."""
    if not overwrite and content.length > _LONG and _is_there(collection, path):
        return "exists"
    generation = vectors.ensure_generation(collection)
    addition = _Addition(collection, generation, _prepared(path, content, metadata), overwrite)
    # What is uncommitted here is nobody else's business, and a long text would hold up the others.
    if connection.in_atomic_block or content.length > _LONG:
        return _write_texts([addition])[0]
    # Apart from those that may replace, which wait for whoever is embedding what they replace.
    return _JOINT.do((collection.pk, generation.pk, overwrite), addition)


def _write_texts(additions: Sequence[_Addition]) -> list[Outcome]:
    """Of one collection and generation, under different paths, in one transaction."""
    return _tried(lambda: _written(additions))


def _written(additions: Sequence[_Addition]) -> list[Outcome]:
    collection = additions[0].collection
    formers = _formers(collection, [each.prepared.path for each in additions])
    wanted = [each for each in additions if each.overwrite or each.prepared.path not in formers]
    replaced = [formers[each.prepared.path] for each in wanted if each.prepared.path in formers]
    if replaced:
        _forget(collection, replaced)
    prepared = [each.prepared for each in wanted]
    documents = write_documents(collection, None, additions[0].generation, prepared)
    if any(each.spans for each in prepared):
        kick_embedding()
    empty = [row for row, each in zip(documents, prepared, strict=True) if not each.spans]
    if empty:
        transaction.on_commit(lambda: finish_indexed(empty))
    return [
        "exists" if each not in wanted else "replaced" if each.prepared.path in formers else "added"
        for each in additions
    ]


_JOINT: Joint[_Addition, Outcome] = Joint(_write_texts, mark=lambda each: each.prepared.path)


def add_file(
    collection: Collection,
    path: str,
    content: bytes,
    metadata: Mapping[str, Any],
    user: AnyUser,
    *,
    overwrite: bool = False,
) -> Outcome:
    """Announces the document and queues its file; a predecessor stays searchable until the file is
    read. Raises BadFile for one that is too large."""
    if not overwrite and _is_there(collection, path):
        return "exists"
    vectors.ensure_generation(collection)
    owner = user.pk if user is not None and user.is_authenticated else None
    upload = Upload(
        collection=collection,
        name=safe_name(path),
        document_path=path,
        metadata=dict(metadata),
        media_type=(mimetypes.guess_type(path)[0] or "")[:100],
        size_bytes=0,
    )
    stored = store(upload, io.BytesIO(content))
    if stored is None:
        raise BadFile("This file is larger than allowed.")
    upload.size_bytes, upload.checksum = stored.size_bytes, stored.checksum
    upload.file.name = stored.file

    def write() -> Outcome:
        former = _former(collection, path)
        if former is not None and not overwrite:
            return "exists"
        upload.pk = None
        upload.batch = _batch(collection, owner)
        upload.save()
        if former is None:
            Document.objects.create(
                collection=collection,
                path=path,
                upload=upload,
                metadata=dict(metadata),
                media_type=upload.media_type or "application/octet-stream",
                size_bytes=stored.size_bytes,
                status=DocumentStatus.RECEIVED,
            )
        else:
            _cancel_upload_of([former])
            former.upload, former.status = upload, DocumentStatus.RECEIVED
            former.save(update_fields=["upload", "status", "updated_at"])
        enqueue_ingest([upload.pk])
        return "replaced" if former is not None else "added"

    outcome: Outcome = "exists"
    try:
        outcome = _tried(write)
    finally:
        if outcome == "exists":
            default_storage.delete(stored.file)
    return outcome


def _batch(collection: Collection, owner: int | None) -> UploadBatch:
    """Files that a program sends one by one are one batch to people, hour by hour."""
    recent = UploadBatch.objects.filter(
        collection=collection,
        created_by_id=owner,
        created_at__gte=timezone.now() - timedelta(hours=1),
        paused=False,
        uploads__document_path__gt="",
    )
    found = recent.order_by("-pk").first()
    return found or UploadBatch.objects.create(collection=collection, created_by_id=owner)


def decoded(text: str) -> bytes:
    """Raises BadFile. Line breaks between the digits do no harm."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadFile("base64_data is not valid base64.") from error


def delete_paths(collection: Collection, paths: Sequence[str]) -> list[str]:
    """Deletes the documents of these paths at once; the paths that were there, in the order given.

    Files that wait to be read for them are not read any more.
    """

    def remove() -> list[str]:
        rows = held(collection, paths)
        _forget(collection, list(rows.values()))
        return list(rows)

    found = set(_tried(remove))
    return [path for path in dict.fromkeys(paths) if path in found]


def held(collection: Collection, paths: Sequence[str]) -> dict[str, Document]:
    """By path, the documents of these paths, held until the caller's transaction ends. One that is
    being replaced is waited for, and its successor is held."""
    found = _formers(collection, paths)
    rows = Document.objects.filter(collection=collection, path__in=list(paths))
    # A worker that has read a file writes its document anew without our lock: whoever waited for
    # the old row then finds none, though the path was there all the time.
    while rows.exclude(pk__in=[each.pk for each in found.values()]).exists():
        found = _formers(collection, paths)
    return found


def _is_there(collection: Collection, path: str) -> bool:
    return Document.objects.filter(collection=collection, path=path).exists()


def _former(collection: Collection, path: str) -> Document | None:
    return _formers(collection, [path]).get(path)


def _formers(collection: Collection, paths: Sequence[str]) -> dict[str, Document]:
    """By path, the documents of these paths, held until the caller's transaction ends; where there
    is none, nobody else adds it until then."""
    keys = [f"{collection.pk}:{path}" for path in paths]
    with connection.cursor() as cursor:
        # In one order, so that two who want the same ones do not wait for each other.
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, key) FROM "
            "(SELECT DISTINCT hashtext(k) AS key FROM unnest(%s::text[]) k ORDER BY 1) keys",
            [_ADDING, keys],
        )
        # Nearly always there is none, which is told without composing a query.
        cursor.execute(
            "SELECT id FROM searchapp_document WHERE collection_id = %s AND path = ANY(%s) "
            "ORDER BY id FOR UPDATE",
            [collection.pk, list(paths)],
        )
        found = [row[0] for row in cursor.fetchall()]
    rows = Document.objects.filter(pk__in=found) if found else ()
    return {row.path: row for row in rows}


def _prepared(path: str, content: PagedText, metadata: Mapping[str, Any]) -> Prepared:
    counter, sizes = passage_measure()
    given = metadata.get("title")
    title = fit_title(given, counter) if isinstance(given, str) else ""
    if content.pages is None:
        text = content.text.replace("\0", "�")
        starts: tuple[int, ...] = ()
        size = len(text.encode())
    else:
        pages = [page.replace("\0", "�") for page in content.pages]
        text, starts = joined(pages)
        size = sum(len(page.encode()) for page in pages)
    if content.in_order:
        spans = split(text, counter=counter, title=title, page_starts=starts, sizes=sizes)
    else:
        spans = split_pages(text, starts, counter, title, sizes)
    extracted = ExtractedDocument(
        path=path,
        text=text,
        title=title or PurePosixPath(path).name,
        page_starts=starts,
        size_bytes=size,
    )
    return Prepared(extracted, path, title, spans, metadata)


def _forget(collection: Collection, documents: Sequence[Document]) -> None:
    """Within the caller's transaction, which holds the rows."""
    _cancel_upload_of(documents)
    erasing.delete_documents(collection, [each.pk for each in documents])
    others = {each.upload_id for each in documents if each.upload_id is not None}
    transaction.on_commit(lambda: settle(others))


def _cancel_upload_of(documents: Sequence[Document]) -> None:
    """The files that programs sent for these documents, waiting or read, are kept no longer."""
    own = Upload.objects.filter(
        ~Q(document_path=""), pk__in=[each.upload_id for each in documents if each.upload_id]
    )
    names = [name for name in own.values_list("file", flat=True) if name]
    own.filter(state__in=OPEN_STATES).update(
        state=UploadState.CANCELLED,
        message="Its document was replaced or deleted.",
        lease_token="",
        lease_until=None,
    )
    own.update(file="")

    def delete_files() -> None:
        for name in names:
            default_storage.delete(name)

    transaction.on_commit(delete_files)


def _tried(write: Callable[[], Done]) -> Done:
    """Runs it in a transaction, again after a deadlock or a clash of two writers."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with transaction.atomic():
                return write()
        except (IntegrityError, OperationalError):
            if not tries_left:
                raise
    raise AssertionError("unreachable")
