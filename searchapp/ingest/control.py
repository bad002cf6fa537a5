"""Pause, resume, cancel, retry, and the sweep that puts stranded work back on its way."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from searchapp.models import Document, PendingVector, Upload, UploadBatch, UploadState
from searchapp.models.uploads import OPEN_STATES

from .finishing import finish_indexed, settle
from .queueing import embedding_begins, enqueue_ingest, kick_embedding, waiting_messages
from .writing import delete_documents

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
# A message lost by the broker is sent again once its upload has waited this long.
_LOST_AFTER_SECONDS = 20
_RESENT_AT_ONCE = 200
_HEALED_AT_ONCE = 1000


def pause(batch: UploadBatch) -> None:
    """Files being read stop at their next step; passages already written still get vectors."""
    UploadBatch.objects.filter(pk=batch.pk).update(paused=True)
    batch.paused = True


def resume(batch: UploadBatch) -> None:
    """Queues every waiting file; documents already written are not made again."""
    UploadBatch.objects.filter(pk=batch.pk).update(paused=False)
    batch.paused = False
    waiting = batch.uploads.filter(state=UploadState.RECEIVED)
    enqueue_ingest(waiting.values_list("pk", flat=True))


def cancel(batch: UploadBatch) -> int:
    """Cancels the files that are not finished and removes what they had indexed; how many."""
    return _cancel(batch.uploads.all())


def cancel_upload(upload: Upload) -> bool:
    """Cancels one file (an archive with its open members); False when it was finished already."""
    members = Upload.objects.filter(parent=upload) | Upload.objects.filter(parent__parent=upload)
    own = Upload.objects.filter(pk=upload.pk)
    if not own.filter(state__in=OPEN_STATES).exists():
        return False
    count = _cancel(
        Upload.objects.filter(
            pk__in=[*own.values_list("pk", flat=True), *members.values_list("pk", flat=True)]
        )
    )
    if upload.parent_id is not None:
        settle([upload.parent_id])
    return count > 0


def retry(upload: Upload) -> bool:
    """failed -> received when another try may help; whether it was so."""
    return _retry(Upload.objects.filter(pk=upload.pk)) == 1


def retry_failed(batch: UploadBatch) -> int:
    """Retries every failed file of the batch for which it may help; how many."""
    return _retry(batch.uploads.all())


def sweep() -> dict[str, int]:
    """Heals what dead workers and lost messages left behind; counts of what was done.

    Meant to run every ten seconds. Several at once do no harm.
    """
    done = {"requeued": 0, "given_up": 0, "resent": 0}
    done["requeued"], done["given_up"] = _expired_leases()
    done["resent"] = _lost_messages()
    _unfinished()
    if PendingVector.objects.exists() and waiting_messages("embed") == 0:
        embedding_begins()  # the mark, if there is one, is of a message that was lost
        kick_embedding()
    if any(done.values()):
        logger.info("sweep: %s", done)
    return done


def _cancel(uploads: QuerySet[Upload]) -> int:
    with transaction.atomic():
        # Waits for the transaction of a worker that is writing; its next one is refused.
        ids = list(
            uploads.filter(state__in=OPEN_STATES)
            .order_by("id")
            .select_for_update(of=("self",))
            .values_list("pk", flat=True)
        )
        cancelled = Upload.objects.filter(pk__in=ids)
        files = [name for name in cancelled.values_list("file", flat=True) if name]
        cancelled.update(
            state=UploadState.CANCELLED,
            message="Cancelled.",
            lease_token="",
            lease_until=None,
            finished_at=timezone.now(),
            documents_done=0,
            passages_done=0,
            file="",
        )
    delete_documents(Document.objects.filter(upload_id__in=ids).values_list("pk", flat=True))
    for name in files:
        default_storage.delete(name)
    return len(ids)


def _retry(uploads: QuerySet[Upload]) -> int:
    with transaction.atomic():
        failed = uploads.filter(state=UploadState.FAILED, retryable=True).exclude(file="")
        rows = list(failed.order_by("id").select_for_update(of=("self",)))
        ids = [upload.pk for upload in rows]
        # attempts 1: documents of the first try are found and not made again.
        Upload.objects.filter(pk__in=ids).update(
            state=UploadState.RECEIVED, attempts=1, message="", retryable=False, finished_at=None
        )
        parents = {upload.parent_id for upload in rows if upload.parent_id is not None}
        Upload.objects.filter(
            pk__in=parents, state__in=[UploadState.READY, UploadState.FAILED]
        ).update(state=UploadState.INDEXING, finished_at=None)
        enqueue_ingest(ids)
    return len(ids)


def _expired_leases() -> tuple[int, int]:
    """(requeued, given up)."""
    with transaction.atomic():
        # A locked row is in the middle of a transaction of its worker: not dead at all.
        expired = list(
            Upload.objects.filter(state=UploadState.PARSING, lease_until__lt=timezone.now())
            .order_by("id")
            .select_for_update(skip_locked=True)
        )
        hopeless = [upload for upload in expired if upload.attempts >= MAX_ATTEMPTS]
        again = [upload.pk for upload in expired if upload.attempts < MAX_ATTEMPTS]
        Upload.objects.filter(pk__in=again).update(
            state=UploadState.RECEIVED, lease_token="", lease_until=None
        )
        Upload.objects.filter(pk__in=[upload.pk for upload in hopeless]).update(
            state=UploadState.FAILED,
            lease_token="",
            lease_until=None,
            finished_at=timezone.now(),
            retryable=True,
            message=(
                f"The worker stopped {MAX_ATTEMPTS} times while reading this file. "
                "It may be too large for this machine; try again when less is going on."
            ),
        )
        enqueue_ingest(again)
    settle([upload.parent_id for upload in hopeless if upload.parent_id is not None])
    return len(again), len(hopeless)


def _lost_messages() -> int:
    """Waiting uploads whose message is gone: the queue is empty and still nobody has come."""
    before = timezone.now() - timedelta(seconds=_LOST_AFTER_SECONDS)
    waiting = Upload.objects.filter(
        state=UploadState.RECEIVED, batch__paused=False, created_at__lt=before
    )
    ids = list(waiting.order_by("id").values_list("pk", flat=True)[:_RESENT_AT_ONCE])
    if not ids or waiting_messages("default") != 0:
        return 0
    enqueue_ingest(ids)
    return len(ids)


def _unfinished() -> None:
    """What a worker completed without living to say so."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT d.id FROM (SELECT id FROM searchapp_document WHERE status = 'indexing'
                              ORDER BY id LIMIT %s) d
            WHERE NOT EXISTS (SELECT 1 FROM searchapp_passage p
                              JOIN searchapp_pendingvector v ON v.passage_id = p.id
                              WHERE p.document_id = d.id)
            """,
            [_HEALED_AT_ONCE],
        )
        documents = [row[0] for row in cursor.fetchall()]
    finish_indexed(documents)
    indexing = Upload.objects.filter(state=UploadState.INDEXING).order_by("id")
    settle(indexing.values_list("pk", flat=True)[:_HEALED_AT_ONCE])
