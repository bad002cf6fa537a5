"""Changes of a document that keep its text: other metadata, another try after a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from searchapp.ingest.adding import held
from searchapp.ingest.queueing import enqueue_ingest, kick_embedding
from searchapp.models import (
    Collection,
    Document,
    DocumentStatus,
    Passage,
    PendingVector,
    Upload,
    UploadState,
)

from ..refusals import Refusal
from .records import index_statuses


def update(
    collection: Collection,
    path: str,
    metadata: Mapping[str, Any] | None,
    index_status: str | None,
) -> Refusal | None:
    """All of it or, with the reason, nothing. Metadata act at once: no passage holds them."""
    with transaction.atomic():
        row = held(collection, [path]).get(path)
        if row is None:
            return Refusal(404, "unknown-document", f"There is no document “{path[:200]}”.")
        now = index_statuses([row])[row.pk]
        if metadata is not None and now != "indexed":
            sentence = f"Metadata can change once the document is indexed; it is {now}."
            return Refusal(400, "not-indexed", sentence)
        wanted = {"not_parsed": "parsing_failed", "not_indexed": "indexing_failed"}
        if index_status is not None and now != wanted[index_status]:
            sentence = f"index_status can become {index_status} after {wanted[index_status]} only;"
            return Refusal(400, "bad-status", f"{sentence} the document is {now}.")
        if metadata is not None:
            Document.objects.filter(pk=row.pk).update(metadata=dict(metadata))
        if index_status == "not_parsed":
            return _read_again(row)
        if index_status == "not_indexed":
            _index_again(collection, row)
    return None


def _read_again(row: Document) -> Refusal | None:
    upload_id = row.upload_id or 0
    again = Upload.objects.filter(pk=upload_id).exclude(file="")
    if not again.update(state=UploadState.RECEIVED, attempts=0, message="", finished_at=None):
        return Refusal(400, "no-file", "The file is no longer kept. Add the document again.")
    enqueue_ingest([upload_id])
    return None


def _index_again(collection: Collection, row: Document) -> None:
    generation = collection.active_generation
    Document.objects.filter(pk=row.pk).update(status=DocumentStatus.INDEXING)
    if generation is not None:
        passages = Passage.objects.filter(document=row).values_list("pk", flat=True)
        PendingVector.objects.bulk_create(
            [PendingVector(generation=generation, passage_id=each) for each in passages],
            ignore_conflicts=True,
        )
    kick_embedding()
