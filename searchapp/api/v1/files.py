"""The files and page images behind signed addresses: no key, the token says it all."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from searchapp.ingest.names import SAFE_TYPES, safe_file_name
from searchapp.ingest.page_images import TooBusy, page_image
from searchapp.models import Document, DocumentText, Upload

from ..auth import refused
from ..links import DOCUMENT, PAGE_IMAGE, read_token
from ..refusals import Refusal
from .endpoint import render
from .pages import has_images

Response = TypeVar("Response", bound=HttpResponseBase)

GONE = Refusal(404, "unknown-token", "This address is not valid or no longer valid.")
# Never run or shown as a page of this server, and for the caller's own cache only.
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, max-age=86400, immutable",
}


@csrf_exempt
def get_document(request: HttpRequest) -> HttpResponseBase:
    """The bytes of the document's file, or its text where it was none."""
    found, _ = _asked(request, DOCUMENT)
    if found is None:
        return refused(GONE, render)
    name = safe_file_name(found.path)
    upload = found.upload
    if upload is not None and upload.file and found.path in _whole_file_of(upload):
        return _file(upload.file, found.media_type, name)
    text = DocumentText.objects.filter(document=found).values_list("text", flat=True).first()
    if text is None:  # replaced or deleted since it was found
        return refused(GONE, render)
    response = HttpResponse(text.encode(), content_type="text/plain; charset=utf-8")
    return _safe(response)


@csrf_exempt
def get_page_image(request: HttpRequest) -> HttpResponseBase:
    """A page as JPEG."""
    found, index = _asked(request, PAGE_IMAGE)
    if found is None or not has_images(found) or not 0 <= index < (found.page_count or 0):
        return refused(GONE, render)
    assert found.upload is not None
    try:
        image = page_image(found.upload.file.path, index)
    except TooBusy:
        busy = Refusal(503, "busy", "Too many pages are being drawn. Try again.", retry_after=1.0)
        return refused(busy, render)
    if image is None:
        return refused(Refusal(404, "no-image", "This page cannot be drawn."), render)
    return _safe(HttpResponse(image, content_type="image/jpeg"))


def _whole_file_of(upload: Upload) -> set[str]:
    """Paths whose document is all of the file; a row of a table is not."""
    return {upload.document_path} if upload.document_path else {upload.name}


def _asked(request: HttpRequest, name: str) -> tuple[Document | None, int]:
    token: tuple[UUID, int] | None = None
    if request.method in {"GET", "HEAD"}:
        token = read_token(name, request.GET.get("token", ""))
    if token is None:
        return None, 0
    uid, index = token
    return Document.objects.select_related("upload").filter(uid=uid).first(), index


def _file(file: Any, media_type: str, name: str) -> HttpResponseBase:
    try:
        content = file.open("rb")
    except OSError:
        return refused(GONE, render)
    kind = media_type if media_type in SAFE_TYPES else "application/octet-stream"
    return _safe(FileResponse(content, as_attachment=True, filename=name, content_type=kind))


def _safe(response: Response) -> Response:
    for header, value in _SAFE.items():
        response.headers[header] = value
    return response
