"""One document: its text with the passage one came for, its passages, its original file."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from rerank.ranking import analysis
from searchapp.ingest.names import SAFE_TYPES, safe_file_name
from searchapp.models import Document, DocumentText, Passage
from searchapp.search import display, reading
from searchapp.search.facets import type_name
from searchapp.search.pipeline import MAX_QUERY_CHARACTERS

PASSAGES_PER_PAGE = 50


@require_safe
@never_cache
def document(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The text around ?passage=ordinal (or window ?part=n), or with ?show=passages the passages."""
    found = get_object_or_404(
        Document.objects.visible_to(request.user).select_related("collection", "upload"), uid=uid
    )
    query = request.GET.get("q", "")[:MAX_QUERY_CHARACTERS]
    wanted = frozenset(analysis.query_terms(query, found.collection.language)) if query else None
    context: dict[str, Any] = {
        "document": found,
        "collection": found.collection,
        "query": query,
        "facts": facts(found),
        "has_file": bool(found.upload and found.upload.file),
        "show_passages": request.GET.get("show") == "passages",
    }
    if context["show_passages"]:
        context |= _passages_context(request, found, wanted)
    else:
        context |= _text_context(request, found, wanted)
    return render(request, "documents/document.html", context)


@require_safe
@never_cache
def document_file(request: HttpRequest, uid: UUID) -> HttpResponseBase:
    """The uploaded file itself, always as a download, never shown by the browser as a page."""
    found = get_object_or_404(
        Document.objects.visible_to(request.user).select_related("upload"), uid=uid
    )
    if not found.upload or not found.upload.file:
        raise Http404("This document was not made from an uploaded file.")
    try:
        file = found.upload.file.open("rb")
    except OSError as error:
        raise Http404("The original file is no longer kept.") from error
    kind = found.upload.media_type or found.media_type
    return FileResponse(
        file,
        as_attachment=True,
        filename=safe_file_name(found.upload.name),
        content_type=kind if kind in SAFE_TYPES else "application/octet-stream",
        headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"},
    )


def facts(found: Document) -> list[tuple[str, str]]:
    """(name, value) pairs of the metadata table, the user's own metadata last."""
    pairs = [("Path", found.path), ("Type", type_name(found.media_type))]
    if found.page_count:
        pairs.append(("Pages", f"{found.page_count:,}"))
    pairs += [
        ("Passages", f"{found.passage_count:,}"),
        ("Added", found.created_at.strftime("%-d %B %Y, %H:%M")),
    ]
    for key, value in sorted(found.metadata.items()):
        pairs.append((key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return pairs


def _text_context(
    request: HttpRequest, found: Document, wanted: frozenset[str] | None
) -> dict[str, Any]:
    content = DocumentText.objects.filter(document=found).first()
    text = content.text if content else ""
    page_starts = content.page_starts if content else []
    starts = reading.windows(text)
    passage = _asked_passage(request, found)
    part = _number(request.GET.get("part"), 0)
    if part == 0:
        part = reading.window_of(starts, passage.start) if passage else 1
    part = min(part, len(starts))
    begin = starts[part - 1]
    end = starts[part] if part < len(starts) else len(text)
    span = (max(passage.start, begin), min(passage.end, end)) if passage else None
    if span and span[0] >= span[1]:
        span = None
    headed = found.passages.defer("text").exclude(heading_path=[]).order_by("ordinal")
    shown = []
    for piece in reading.pieces(text, begin, end, page_starts, span):
        parts = [display.Part(piece.text)]
        if piece.highlighted and wanted:
            parts = display.marked(piece.text, wanted, found.collection.language)
        shown.append((piece, parts))
    return {
        "pieces": shown,
        "passage": passage,
        "page_label": display.page_label(passage.page_first, passage.page_last) if passage else "",
        "outline": reading.outline(starts, page_starts, list(headed[:5000])),
        "part": part,
        "parts": len(starts),
        "address": reverse("document", args=[found.uid]),
    }


def _passages_context(
    request: HttpRequest, found: Document, wanted: frozenset[str] | None
) -> dict[str, Any]:
    pages = Paginator(found.passages.order_by("ordinal"), PASSAGES_PER_PAGE)
    page = pages.get_page(request.GET.get("page"))
    language = found.collection.language
    passages = [
        (
            each,
            display.marked(each.text, wanted or frozenset(), language),
            display.page_label(each.page_first, each.page_last),
        )
        for each in page.object_list
    ]
    numbers = [str(each) for each in pages.get_elided_page_range(page.number)]
    return {"passages": passages, "page": page, "page_numbers": numbers, "pages": pages.num_pages}


def _asked_passage(request: HttpRequest, found: Document) -> Passage | None:
    ordinal = _number(request.GET.get("passage"), -1)
    return found.passages.filter(ordinal=ordinal).first() if ordinal >= 0 else None


def _number(text: str | None, default: int) -> int:
    return min(int(text), 2**31 - 1) if text and text.isascii() and text.isdigit() else default
