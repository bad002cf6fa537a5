"""The table of a collection's documents: find, retry, delete."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from searchapp.ingest import control
from searchapp.ingest.writing import delete_documents
from searchapp.models import Collection, Document, DocumentStatus, Role, Upload, UploadState
from searchapp.search.facets import type_name

from .access import Access, opened, whole

PAGE_SIZE = 50


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def documents(request: HttpRequest, slug: str) -> HttpResponse:
    """GET: the table. POST, for editors: `action` retry or delete of the chosen `document`s."""
    if request.method == "POST":
        return _act(request, opened(request, slug, Role.EDITOR))
    access = opened(request, slug)
    collection = access.collection
    chosen = {name: request.GET.get(name, "").strip() for name in ("q", "status", "type")}
    page = _page(filtered(collection, **chosen), request.GET.get("page", "1"))
    kinds = collection.documents.values_list("media_type").annotate(n=Count("pk")).order_by("-n")
    context = {
        "access": access,
        "collection": collection,
        "tab": "documents",
        "chosen": chosen,
        "page": page,
        "rows": [(each, type_name(each.media_type)) for each in page.object_list],
        "page_query": urlencode({name: value for name, value in chosen.items() if value}),
        "kinds": [(kind, type_name(kind), count) for kind, count in kinds[:40]],
        "statuses": DocumentStatus.choices,
        "failed_uploads": collection.uploads.filter(state=UploadState.FAILED).count(),
    }
    return render(request, "collections/documents.html", context)


def filtered(collection: Collection, q: str, status: str, type: str) -> QuerySet[Document]:
    """Documents by a part of their title or path, their status and their media type."""
    rows = collection.documents.select_related("upload").order_by("path")
    if q:
        q = q.replace("\x00", "")
        rows = rows.filter(Q(path__icontains=q) | Q(title__icontains=q))
    if status in DocumentStatus.values:
        rows = rows.filter(status=status)
    if type:
        rows = rows.filter(media_type=type.replace("\x00", ""))
    return rows


def _act(request: HttpRequest, access: Access) -> HttpResponse:
    """Deleting shows first what would go; the same form with `confirmed` does it."""
    collection = access.collection
    numbers = [whole(text) for text in request.POST.getlist("document")]
    rows = list(collection.documents.filter(pk__in=numbers[:1000]).order_by("path"))
    back = f"{reverse('collection_documents', args=[collection.slug])}?{_return_query(request)}"
    action = request.POST.get("action")
    if not rows:
        messages.error(request, "Choose at least one document.")
    elif action == "delete" and "confirmed" not in request.POST:
        context = {
            "access": access,
            "collection": collection,
            "tab": "documents",
            "rows": rows,
            "passages": sum(row.passage_count for row in rows),
            "return_query": _return_query(request),
        }
        return render(request, "collections/delete_documents.html", context)
    elif action == "delete":
        delete_documents(row.pk for row in rows)
        messages.success(request, f"{_documents(len(rows))} deleted.")
    elif action == "retry":
        _say_retried(request, rows)
    return redirect(back)


def _say_retried(request: HttpRequest, rows: Sequence[Document]) -> None:
    uploads = Upload.objects.filter(
        pk__in={row.upload_id for row in rows if row.upload_id},
        state=UploadState.FAILED,
        retryable=True,
    )
    count = sum(1 for upload in uploads if control.retry(upload))
    if count:
        messages.success(request, f"{_documents(count)} will be read again.")
    else:
        messages.info(request, "None of the chosen documents failed in a way that a retry mends.")


def _documents(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"


def _page(rows: QuerySet[Document], number: str) -> Page[Document]:
    return Paginator(rows, PAGE_SIZE).get_page(number)


def _return_query(request: HttpRequest) -> str:
    """The table as it was before the action, to return to it."""
    return QueryDict(request.POST.get("return", "")[:1000]).urlencode()
