"""One upload to searchable passages: claim, read, write, settle. Running it twice is running it
once; a worker killed anywhere leaves rows that the sweep (control.py) puts back on their way."""

from __future__ import annotations

import logging
import mimetypes
import tempfile
from pathlib import Path

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Count, F, Q, Sum

from searchapp.models import Upload, UploadState

from .extract.records import (
    ExtractedDocument,
    ExtractedMember,
    ExtractionFailure,
    ExtractionNote,
    Item,
    Limits,
    RefusedMember,
    Source,
)
from .extract.running import extract
from .finishing import settle
from .lease import Lease, LeaseLost, Paused, claim
from .names import safe_name
from .one_document import OneDocumentWriter, Superseded
from .receive import add_upload, refuse
from .writing import DocumentWriter

logger = logging.getLogger(__name__)

_SEVERAL = "This is an archive of several files. Unpack it and add each as a document of its own."


def ingest(upload_id: int, *, enqueue_members: bool = True) -> str:
    """Does the work of one upload and returns its state, or "busy", "paused" or "lost".

    Raises OperationalError or InterfaceError when the database is away: the lease then runs out and
    the sweep puts the upload back.
    """
    lease = claim(upload_id)
    if lease is None:
        return "busy"
    try:
        return _Work(lease, enqueue_members).run()
    except LeaseLost:
        return "lost"
    except Superseded as reason:
        return _cancelled(lease, str(reason))
    except Paused:
        return _give_back(lease)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logger.exception("upload %s failed", upload_id)
        return _fail(
            lease,
            f"Something unexpected went wrong with this file ({type(error).__name__}). "
            "Try again; the log of the worker says more.",
            retryable=True,
        )


class _Work:
    """What one run over one upload has found so far."""

    def __init__(self, lease: Lease, enqueue_members: bool) -> None:
        self.lease = lease
        self.upload = lease.upload
        self.enqueue_members = enqueue_members
        self.writer: DocumentWriter | OneDocumentWriter = (
            OneDocumentWriter(lease) if self.upload.document_path else DocumentWriter(lease)
        )
        self.notes: list[str] = []
        self.failure: ExtractionFailure | None = None
        self.members = 0
        self.media_type = ""

    def run(self) -> str:
        name = self.upload.file.name
        if not name or not default_storage.exists(name):
            return _fail(self.lease, "The stored file is missing. Upload it again.", False)
        with tempfile.TemporaryDirectory(prefix="podium-") as scratch:
            for item in extract(_source(self.upload, Path(scratch))):
                self.lease.heartbeat()
                if item is not None:
                    self._take(item)
        self.writer.flush()
        return self._finish()

    def _take(self, item: Item) -> None:
        if isinstance(item, ExtractedDocument):
            self.media_type = self.media_type or item.media_type
            self.writer.add(item)
        elif isinstance(item, ExtractionNote):
            self.notes.append(item.message)
        elif isinstance(item, ExtractionFailure):
            self.failure = item
        else:
            self._take_member(item)

    def _take_member(self, item: ExtractedMember | RefusedMember) -> None:
        if self.upload.document_path:
            if isinstance(item, ExtractedMember):
                Path(item.scratch).unlink(missing_ok=True)
            self.failure = ExtractionFailure(_SEVERAL)
            return
        self.members += 1
        name = f"{self.upload.name}/{item.name}"
        with transaction.atomic():
            self.lease.renew(documents_done=F("documents_done"))
            if self._is_known(name):
                pass
            elif isinstance(item, RefusedMember):
                refuse(_member_row(self.upload, name), item.message)
            else:
                with Path(item.scratch).open("rb") as content:
                    add_upload(
                        self.upload.batch,
                        name,
                        content,
                        metadata=self.upload.metadata,
                        parent=self.upload,
                        enqueue=self.enqueue_members,
                    )
        if isinstance(item, ExtractedMember):
            Path(item.scratch).unlink(missing_ok=True)
        self.lease.check_pause()

    def _is_known(self, name: str) -> bool:
        """Whether an earlier attempt already handed this member on."""
        if self.upload.attempts < 2:
            return False
        return Upload.objects.filter(
            parent=self.upload, name=_member_row(self.upload, name).name
        ).exists()

    def _finish(self) -> str:
        notes = " ".join(self.notes)
        if self.failure is not None:
            kept = self.writer.documents + self.members
            parts = [self.failure.message, notes]
            if kept:
                parts.append(f"What was read before that ({kept:,}) is kept.")
            return _fail(self.lease, " ".join(filter(None, parts)), self.failure.retryable)
        if not self.writer.documents and not self.members:
            return _fail(self.lease, notes or "The file holds no text.", False)
        if self.writer.documents and (vanished := self.writer.drop_vanished()):
            notes = f"{notes} {_vanished(vanished)}".strip()
        guessed = mimetypes.guess_type(self.upload.name)[0] if self.members else None
        media_type = self.media_type or guessed or "application/octet-stream"
        self.lease.release(UploadState.INDEXING, message=notes, media_type=media_type)
        settle([self.upload.pk])
        state: str = Upload.objects.values_list("state", flat=True).get(pk=self.upload.pk)
        return state


def _vanished(documents: int) -> str:
    if documents == 1:
        return "1 document of the earlier version is no longer in this file and was removed."
    return (
        f"{documents:,} documents of the earlier version are no longer in this file and were "
        "removed."
    )


def _fail(lease: Lease, message: str, retryable: bool) -> str:
    try:
        lease.release(UploadState.FAILED, message=message, retryable=retryable)
    except LeaseLost:
        return "lost"
    if lease.upload.parent_id is not None:
        settle([lease.upload.parent_id])
    return UploadState.FAILED


def _cancelled(lease: Lease, reason: str) -> str:
    try:
        lease.release(UploadState.CANCELLED, message=reason)
    except LeaseLost:
        return "lost"
    return UploadState.CANCELLED


def _give_back(lease: Lease) -> str:
    """A paused upload waits again; only attempts that broke off count towards giving up."""
    try:
        lease.release(UploadState.RECEIVED, attempts=1)
    except LeaseLost:
        return "lost"
    return "paused"


def _source(upload: Upload, scratch: Path) -> Source:
    return Source(
        path=Path(upload.file.path),
        name=upload.name,
        limits=_limits(upload),
        scratch=scratch,
        depth=_depth(upload),
    )


def _depth(upload: Upload) -> int:
    depth = 0
    while upload.parent is not None:
        depth += 1
        upload = upload.parent
    return depth


def _limits(upload: Upload) -> Limits:
    """The settings' limits; for a member, what its outermost archive has left of them."""
    expanded, members = settings.MAX_EXPANDED_BYTES, settings.MAX_ARCHIVE_MEMBERS
    root = upload
    while root.parent is not None:
        root = root.parent
    if root.pk != upload.pk:
        used = Upload.objects.filter(Q(parent=root) | Q(parent__parent=root)).aggregate(
            size=Sum("size_bytes"), count=Count("id")
        )
        expanded = max(1, expanded - (used["size"] or 0))
        members = max(1, members - used["count"])
    return Limits(
        upload_bytes=settings.MAX_UPLOAD_BYTES,
        expanded_bytes=expanded,
        members=members,
        memory_bytes=settings.PARSE_MEMORY_BYTES,
        seconds=settings.PARSE_TIMEOUT_SECONDS,
    )


def _member_row(parent: Upload, name: str) -> Upload:
    return Upload(
        batch=parent.batch,
        collection_id=parent.collection_id,
        parent=parent,
        name=safe_name(name),
        size_bytes=0,
    )
