"""/v1/documents/get-page-info, and what other endpoints say of a page."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

from searchapp.ingest.paged import PAGE_END, page_span
from searchapp.models import Document, DocumentStatus, DocumentText, Family, Passage, Scope
from searchapp.search.access import snapshot

from ..links import Links
from ..refusals import Refusal
from .documents import found_document
from .endpoint import Answer, Call, endpoint
from .schemas import Asked, Text

MAX_INDEX = 2**31 - 1


class GetPageInfo(Asked):
    collection_name: Text
    path: Text
    page_index: int
    include_content: bool = False


@endpoint(
    "documents/get-page-info",
    GetPageInfo,
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
)
def get_page_info(call: Call, asked: GetPageInfo) -> Answer:
    """One page of a document, counted from 0."""
    with snapshot():
        return _page_info(call, asked)


def _page_info(call: Call, asked: GetPageInfo) -> Answer:
    found = found_document(call, asked.collection_name, asked.path)
    if isinstance(found, Refusal):
        return found
    index = asked.page_index
    count = 0 if found.status == DocumentStatus.RECEIVED else found.page_count or 0
    if not 0 <= index < count:
        return Refusal(404, "unknown-page", f"This document has no page {index}; it has {count}.")
    content = None
    if asked.include_content:
        kept = DocumentText.objects.filter(document=found).first()
        content = page_text(kept, index) if kept else ""
    return {
        "page": {
            "id": str(page_id(found.uid, index)),
            "collection_name": asked.collection_name,
            "path": found.path,
            "page_index": index,
            "image_url": image_url(found, index, call.links),
            "content": content,
        }
    }


def page_text(kept: DocumentText, index: int) -> str:
    """ "" for a page that a newer version of the document has not."""
    if index >= len(kept.page_starts):
        return ""
    start, end = page_span(len(kept.text), kept.page_starts, index)
    return kept.text[start:end].removesuffix(PAGE_END)


def pages_in(passage: Passage, page_starts: Sequence[int], pages: Sequence[int]) -> dict[int, str]:
    """What of a passage stands on each of its pages (from 0)."""
    found = {}
    for page in pages:
        begin = page_starts[page] if page < len(page_starts) else passage.end
        end = page_starts[page + 1] if page + 1 < len(page_starts) else passage.end
        first, last = max(begin - passage.start, 0), max(end - passage.start, 0)
        found[page] = passage.text[first:last]
    return found


def image_url(document: Document, index: int, links: Links) -> str | None:
    """Where its picture is, for the formats that have one. `upload` should be at hand."""
    return links.page_image(document.uid, index) if has_images(document) else None


def has_images(document: Document) -> bool:
    upload = document.upload
    return (
        document.media_type == "application/pdf"
        and document.status != DocumentStatus.RECEIVED
        and upload is not None
        and bool(upload.file)
    )


def page_id(uid: UUID, index: int) -> UUID:
    return uuid5(uid, str(index))
