"""Files arrive: stored while they are hashed, told apart from what is already there, queued."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from searchapp.models import Collection, Document, Upload, UploadBatch, UploadState
from searchapp.models.corpus import AnyUser
from searchapp.models.uploads import OPEN_STATES, upload_path

from .extract.records import megabytes
from .names import safe_name
from .queueing import enqueue_ingest

_BLOCK = 1024 * 1024
# The first half of the advisory lock's key; the second is the collection.
_LOCK_CLASS = 4201

# An uploaded file of a form, a path on this machine, or (name, path or open file).
Incoming = Any


@dataclass(frozen=True)
class Stored:
    """Bytes in the storage under `file`, with their SHA-256."""

    file: str
    size_bytes: int
    checksum: str


def receive(
    collection: Collection,
    files: Iterable[Incoming],
    user: AnyUser = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    batch: UploadBatch | None = None,
    enqueue: bool = True,
) -> UploadBatch:
    """Stores the files as one batch and queues each for ingest after the commit.

    `files` are uploaded files, paths, or (name, path or open binary file) pairs. Each becomes an
    Upload whatever its fate: too large is `failed`, the same bytes again is `duplicate`, both with
    a message. `batch` adds them to an existing one of the collection. `metadata` (str -> str or
    list of str) goes to every document made from them.
    `enqueue=False` leaves the work to the caller (`inline.finish_here`).
    """
    owner = user.pk if user is not None and user.is_authenticated else None
    if batch is None:
        batch = UploadBatch.objects.create(collection=collection, created_by_id=owner)
    if batch.collection_id != collection.pk:
        raise ValueError(f"batch {batch.pk} belongs to another collection")
    for incoming in files:
        name, content = _opened(incoming)
        try:
            add_upload(batch, name, content, metadata=metadata, enqueue=enqueue)
        finally:
            if isinstance(incoming, Path) or (
                isinstance(incoming, tuple) and isinstance(incoming[1], Path)
            ):
                content.close()
    return batch


def add_upload(
    batch: UploadBatch,
    name: str,
    content: BinaryIO | File[bytes],
    *,
    metadata: Mapping[str, Any] | None = None,
    parent: Upload | None = None,
    enqueue: bool = True,
) -> Upload:
    """One more file of a batch."""
    upload = Upload(
        batch=batch,
        collection_id=batch.collection_id,
        parent=parent,
        name=safe_name(name),
        metadata=dict(metadata or {}),
        size_bytes=0,
    )
    stored = store(upload, content)
    if stored is None:
        limit = megabytes(settings.MAX_UPLOAD_BYTES)
        return refuse(upload, f"This file is larger than the {limit} allowed.")
    try:
        return _register(upload, stored, enqueue=enqueue)
    except BaseException:
        default_storage.delete(stored.file)
        raise


def refuse(upload: Upload, message: str) -> Upload:
    """Saves an upload that is not taken, with the reason."""
    upload.state = UploadState.FAILED
    upload.message = message
    upload.finished_at = timezone.now()
    upload.save()
    return upload


def store(upload: Upload, content: BinaryIO | File[bytes]) -> Stored | None:
    """Streams the bytes to the storage; None, with nothing left behind, when they are too many."""
    hashed = _Hashed(content, settings.MAX_UPLOAD_BYTES)
    file = default_storage.save(upload_path(upload, upload.name), hashed)
    upload.size_bytes = hashed.total
    if hashed.is_too_large:
        default_storage.delete(file)
        return None
    return Stored(file, hashed.total, hashed.digest.hexdigest())


class _Hashed(File):  # type: ignore[type-arg]
    """A file that is hashed and counted as the storage reads it, and ends at the limit."""

    def __init__(self, content: BinaryIO | File[bytes], limit: int) -> None:
        super().__init__(None, name="stored")
        self._content = content
        self._limit = limit
        self.digest = hashlib.sha256()
        self.total = 0

    @property
    def is_too_large(self) -> bool:
        return self.total > self._limit

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        while not self.is_too_large and (block := self._content.read(_BLOCK)):
            self.total += len(block)
            self.digest.update(block)
            yield block


def _register(upload: Upload, stored: Stored, *, enqueue: bool) -> Upload:
    upload.size_bytes = stored.size_bytes
    upload.checksum = stored.checksum
    upload.file.name = stored.file
    with transaction.atomic():
        with connection.cursor() as cursor:
            # Two copies arriving at once must not both be the first.
            cursor.execute(
                "SELECT pg_advisory_xact_lock(%s, hashint8(%s))",
                [_LOCK_CLASS, upload.collection_id],
            )
        first = same_bytes(upload.collection_id, stored.checksum)
        if first is not None:
            upload.state = UploadState.DUPLICATE
            upload.duplicate_of = first
            upload.message = (
                f"The same bytes were uploaded before as “{first.name}” "
                f"({first.created_at:%Y-%m-%d %H:%M})."
            )
            upload.finished_at = timezone.now()
            upload.file.name = ""
        upload.save()
        if first is None and enqueue:
            enqueue_ingest([upload.pk])
    if first is not None:
        default_storage.delete(stored.file)
    return upload


def same_bytes(collection_id: int, checksum: str) -> Upload | None:
    """The first upload of these bytes that is on its way or still searchable."""
    own = Document.objects.filter(upload_id=OuterRef("pk"))
    members = Document.objects.filter(
        Q(upload__parent_id=OuterRef("pk")) | Q(upload__parent__parent_id=OuterRef("pk"))
    )
    on_its_way = Q(state__in=OPEN_STATES)
    searchable = Q(state=UploadState.READY) & (Exists(own) | Exists(members))
    return (
        Upload.objects.filter(collection_id=collection_id, checksum=checksum)
        .filter(on_its_way | searchable)
        .order_by("id")
        .first()
    )


def _opened(incoming: Incoming) -> tuple[str, BinaryIO | File[bytes]]:
    if isinstance(incoming, Path):
        return incoming.name, incoming.open("rb")
    if isinstance(incoming, tuple):
        name, content = incoming
        return str(name), content.open("rb") if isinstance(content, Path) else content
    return str(incoming.name), incoming
