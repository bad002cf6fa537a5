"""What is complete is said to be so: documents, then their uploads, then their archives."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from django.db.models import Count, Q

from searchapp.models import Upload, UploadState


def finish_indexed(document_ids: Iterable[int]) -> None:
    """Documents whose vectors are all written become ready, then the uploads they complete.

    Called by the embed worker after each batch of vectors; cheap and safe to repeat. Call it
    outside a transaction: the second step must see what others committed after the first.
    """
    ids = list(document_ids)
    if not ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE searchapp_document d SET status = 'ready', updated_at = now()
            WHERE d.id = ANY(%s) AND d.status = 'indexing' AND NOT EXISTS (
                SELECT 1 FROM searchapp_passage p
                JOIN searchapp_pendingvector v ON v.passage_id = p.id
                WHERE p.document_id = d.id)
            RETURNING d.upload_id
            """,
            [ids],
        )
        uploads = {row[0] for row in cursor.fetchall() if row[0] is not None}
    settle(uploads)


def settle(upload_ids: Iterable[int]) -> None:
    """indexing -> ready for those uploads with nothing left to do, and for their archives."""
    waiting = list(upload_ids)
    while waiting:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE searchapp_upload u
                SET state = 'ready', finished_at = now(), retryable = false
                WHERE u.id = ANY(%s) AND u.state = 'indexing'
                AND NOT EXISTS (SELECT 1 FROM searchapp_document d
                                WHERE d.upload_id = u.id AND d.status = 'indexing')
                AND NOT EXISTS (SELECT 1 FROM searchapp_upload m WHERE m.parent_id = u.id
                                AND m.state IN ('received', 'parsing', 'indexing'))
                RETURNING u.id, u.parent_id
                """,
                [waiting],
            )
            done = cursor.fetchall()
        _sum_up([row[0] for row in done])
        waiting = [row[1] for row in done if row[1] is not None]


def _sum_up(upload_ids: list[int]) -> None:
    """An archive's message says what became of its members; without one good one it failed."""
    archives = Upload.objects.filter(pk__in=upload_ids, members__isnull=False).annotate(
        total=Count("members"),
        good=Count("members", filter=Q(members__state=UploadState.READY)),
        same=Count("members", filter=Q(members__state=UploadState.DUPLICATE)),
        bad=Count("members", filter=Q(members__state=UploadState.FAILED)),
    )
    for archive in archives:
        if not archive.good and not archive.same:
            archive.state = UploadState.FAILED
            archive.message = f"None of the {archive.total:,} files in this archive could be read."
        else:
            parts = [f"{archive.total:,} files: {archive.good:,} read"]
            parts += [f"{archive.same:,} duplicates"] if archive.same else []
            parts += [f"{archive.bad:,} failed"] if archive.bad else []
            archive.message = ", ".join(parts) + "."
        Upload.objects.filter(pk=archive.pk, state=UploadState.READY).update(
            state=archive.state, message=archive.message
        )
