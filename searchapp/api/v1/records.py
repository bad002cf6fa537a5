"""Documents as the contract describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from searchapp.models import Document, DocumentStatus, PendingVector, Upload, UploadState
from searchapp.models.uploads import OPEN_STATES

from ..links import Links

Record = dict[str, Any]

# A document that waits for its file, by what became of that.
_OF_UPLOAD = {UploadState.RECEIVED: "not_parsed", UploadState.PARSING: "parsing"}


def index_statuses(documents: Sequence[Document]) -> Mapping[int, str]:
    """pk -> not_parsed, parsing, not_indexed, indexing, indexed, parsing_failed, indexing_failed.

    One query however many there are; `upload` should be at hand.
    """
    indexing = [each.pk for each in documents if each.status == DocumentStatus.INDEXING]
    pending: dict[int, int] = {}
    if indexing:
        rows = PendingVector.objects.filter(passage__document_id__in=indexing)
        pending = dict(rows.values_list("passage__document_id").annotate(n=Count("pk")).order_by())
    return {each.pk: _status(each, pending.get(each.pk, 0)) for each in documents}


def counts(documents: QuerySet[Document]) -> Mapping[str, int]:
    """How many are being parsed, being indexed, indexed and failed, and how many in all."""
    waiting = Upload.objects.filter(pk=OuterRef("upload_id"), state__in=OPEN_STATES)
    received = Q(status=DocumentStatus.RECEIVED)
    found: dict[str, int] = documents.annotate(is_waiting=Exists(waiting)).aggregate(
        num_documents=Count("pk"),
        num_parsing_documents=Count("pk", filter=received & Q(is_waiting=True)),
        num_indexing_documents=Count("pk", filter=Q(status=DocumentStatus.INDEXING)),
        num_indexed_documents=Count("pk", filter=Q(status=DocumentStatus.READY)),
        num_failed_documents=Count(
            "pk", filter=received & Q(is_waiting=False) | Q(status=DocumentStatus.FAILED)
        ),
    )
    return found


def records(documents: Iterable[Document], name: str, links: Links) -> list[Record]:
    """Each without `content` and `created_at`. `name`: of the collection, as it was asked for."""
    rows = list(documents)
    statuses = index_statuses(rows)
    return [
        {
            "id": str(row.uid),
            "collection_name": name,
            "path": row.path,
            "metadata": row.metadata,
            "index_status": statuses[row.pk],
            "size": row.size_bytes,
            "num_pages": None if row.status == DocumentStatus.RECEIVED else row.page_count,
            "file_url": links.document(row.uid),
        }
        for row in rows
    ]


def _status(row: Document, pending: int) -> str:
    if row.status == DocumentStatus.READY:
        return "indexed"
    if row.status == DocumentStatus.INDEXING:
        return "not_indexed" if pending >= row.passage_count else "indexing"
    if row.status == DocumentStatus.FAILED:
        return "indexing_failed"
    state = row.upload.state if row.upload is not None else UploadState.FAILED
    return _OF_UPLOAD.get(UploadState(state), "parsing_failed")
