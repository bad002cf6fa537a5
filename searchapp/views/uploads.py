"""Uploads of a collection: the drop zone, one page per batch, its live list of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.core.paginator import Paginator
from django.db.models import (
    Case,
    Count,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from searchapp.ingest import control
from searchapp.ingest.progress import batch_progress
from searchapp.ingest.receive import receive
from searchapp.models import (
    OPEN_STATES,
    Collection,
    Document,
    Role,
    Upload,
    UploadBatch,
    UploadState,
)

from .access import Access, opened, whole

PAGE_SIZE = 100
BATCHES_PER_PAGE = 20
MAX_FILES_PER_DROP = 20_000
# What a drop zone names; the server looks at the bytes, not at these.
FORMATS = (
    "PDF, Word, PowerPoint, Excel, HTML, Markdown, text, CSV, JSON, and zip or tar.gz of those"
)

# Filter of the list -> its states, in the order of the tabs.
FILTERS: dict[str, Sequence[str]] = {
    "failed": [UploadState.FAILED],
    "working": [UploadState.PARSING, UploadState.INDEXING],
    "waiting": [UploadState.RECEIVED],
    "ready": [UploadState.READY],
    "duplicate": [UploadState.DUPLICATE],
    "cancelled": [UploadState.CANCELLED],
}
BADGES = {
    UploadState.READY: "badge-ok",
    UploadState.FAILED: "badge-error",
    UploadState.PARSING: "badge-accent",
    UploadState.INDEXING: "badge-accent",
    UploadState.DUPLICATE: "badge-warn",
}
STEPS = {UploadState.RECEIVED: 0, UploadState.PARSING: 1, UploadState.INDEXING: 2}


@dataclass(frozen=True)
class Row:
    """One file in the list. `step`: 0 waiting, 1 reading, 2 indexing, 3 at its end."""

    upload: Upload
    state: str
    badge: str
    step: int
    nested: bool
    document_uid: UUID | None

    @property
    def name(self) -> str:
        """As its archive calls it, where that is shown beside or above it."""
        parent = self.upload.parent
        return self.upload.name.removeprefix(f"{parent.name}/") if parent else self.upload.name

    @property
    def is_open(self) -> bool:
        return self.step < 3


@dataclass(frozen=True)
class Tab:
    name: str
    label: str
    count: int
    query: str
    current: bool


def limits() -> dict[str, Any]:
    """What a drop zone says and checks before anything is sent."""
    return {
        "file_bytes": settings.MAX_UPLOAD_BYTES,
        "file_size": f"{settings.MAX_UPLOAD_BYTES // 1024**2:,} MB",
        "file_count": MAX_FILES_PER_DROP,
        "request_files": min(20, settings.DATA_UPLOAD_MAX_NUMBER_FILES),
        "form_files": settings.DATA_UPLOAD_MAX_NUMBER_FILES,
        "formats": FORMATS,
    }


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def uploads(request: HttpRequest, slug: str) -> HttpResponse:
    """GET: drop zone and earlier batches. POST: receives files, into `batch` if one is named."""
    access = opened(request, slug, Role.EDITOR)
    if request.method == "POST":
        return _receive(request, access)
    collection = access.collection
    batches = (
        UploadBatch.objects.filter(collection=collection)
        .select_related("created_by")
        .annotate(
            files=Count("uploads"),
            failed=Count("uploads", filter=Q(uploads__state=UploadState.FAILED)),
            open=Count("uploads", filter=Q(uploads__state__in=OPEN_STATES)),
            ready=Count("uploads", filter=Q(uploads__state=UploadState.READY)),
        )
        .filter(files__gt=0)
        .order_by("-pk")
    )
    context = {
        "access": access,
        "collection": collection,
        "tab": "uploads",
        "limits": limits(),
        "page": Paginator(batches, BATCHES_PER_PAGE).get_page(request.GET.get("page", "1")),
    }
    return render(request, "uploads/uploads.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def batch(request: HttpRequest, uid: UUID) -> HttpResponse:
    """One batch. POST: `action` pause, resume, cancel, retry-failed, or `retry` of one upload."""
    found, access = _batch(request, uid)
    if request.method == "POST":
        done = _act(request, found)
        if _wants_json(request):
            return JsonResponse({"message": done})
        messages.success(request, done)
        back = reverse("upload_batch", args=[found.uid])
        return redirect(f"{back}?{_query(request)}" if _query(request) else back)
    context = _list_context(request, found, access) | {"tab": "uploads", "limits": limits()}
    return render(request, "uploads/batch.html", context)


@require_safe
@never_cache
def batch_status(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Totals and list of a batch as a fragment, re-fetched by job-status.js."""
    found, access = _batch(request, uid)
    return render(request, "uploads/_status.html", _list_context(request, found, access))


# --- receiving ---------------------------------------------------------------------------------


def _receive(request: HttpRequest, access: Access) -> HttpResponse:
    files = named(request.FILES.getlist("files"), request.POST.getlist("path"))
    if not files and request.POST.get("action") != "open":
        return _refused(request, access, "Choose at least one file.")
    into = _batch_to_fill(request, access)
    if files:
        into = receive(access.collection, files, request.user, batch=into)
    elif into is None:
        into = UploadBatch.objects.create(collection=access.collection, created_by=_user(request))
    url = reverse("upload_batch", args=[into.uid])
    if _wants_json(request):
        status_url = reverse("upload_batch_status", args=[into.uid])
        return JsonResponse({"batch": str(into.uid), "url": url, "status": status_url})
    return redirect(url)


def named(
    files: Sequence[UploadedFile[bytes]], paths: Sequence[str]
) -> list[tuple[str, UploadedFile[bytes]]]:
    """Files with their paths inside a dropped folder, which browsers send apart from the name."""
    if len(paths) != len(files):
        paths = [""] * len(files)
    return [(path or file.name or "unnamed", file) for path, file in zip(paths, files, strict=True)]


def _batch_to_fill(request: HttpRequest, access: Access) -> UploadBatch | None:
    text = request.POST.get("batch", "")
    if not text:
        return None
    try:
        uid = UUID(text)
    except ValueError:
        raise Http404(f"no batch {text!r}") from None
    return get_object_or_404(UploadBatch, uid=uid, collection=access.collection)


def _refused(request: HttpRequest, access: Access, sentence: str) -> HttpResponse:
    if _wants_json(request):
        return JsonResponse({"message": sentence}, status=400)
    messages.error(request, sentence)
    return redirect("collection_uploads", access.collection.slug)


# --- one batch ---------------------------------------------------------------------------------


def _batch(request: HttpRequest, uid: UUID) -> tuple[UploadBatch, Access]:
    """The batch for those who may edit its collection; 404 for those who cannot see that."""
    visible = Collection.objects.visible_to(request.user)
    found = get_object_or_404(
        UploadBatch.objects.select_related("collection", "created_by"),
        uid=uid,
        collection__in=visible,
    )
    return found, opened(request, found.collection.slug, Role.EDITOR)


def _act(request: HttpRequest, found: UploadBatch) -> str:
    """Does what the button says; returns what became of it, a sentence."""
    retry = request.POST.get("retry", "")
    if retry:
        upload = get_object_or_404(found.uploads, pk=whole(retry))
        if control.retry(upload):
            return f"{upload.name} will be read again."
        return f"{upload.name} is {upload.get_state_display().lower()}: there is nothing to retry."
    action = request.POST.get("action")
    if action == "pause":
        control.pause(found)
        return "Paused. Files that are being read stop at their next step; nothing is lost."
    if action == "resume":
        control.resume(found)
        return "Going on where it stopped."
    if action == "cancel":
        control.cancel(found)
        return "Cancelled. Documents that were ready before stay."
    if action == "retry-failed":
        count = control.retry_failed(found)
        return f"{count:,} file{' is' if count == 1 else 's are'} tried again."
    raise PermissionDenied(f"no action {action!r}")


def _list_context(request: HttpRequest, found: UploadBatch, access: Access) -> dict[str, Any]:
    progress = batch_progress(found)
    chosen = request.GET.get("state", "")
    chosen = chosen if chosen in FILTERS else ""
    page = Paginator(ordered(found, chosen), PAGE_SIZE).get_page(request.GET.get("page", "1"))
    return {
        "access": access,
        "collection": access.collection,
        "batch": found,
        "progress": progress,
        "failed": progress.states[UploadState.FAILED],
        "time_left": time_left(progress.seconds_left),
        "done_percent": 100 * progress.files_finished // max(1, progress.files),
        "tabs": _tabs(progress.states, chosen, progress.files),
        "chosen": chosen,
        "page": page,
        "rows": _rows(page.object_list, paused=progress.is_paused),
        "page_query": urlencode({"state": chosen}) if chosen else "",
        "here_query": _query(request),
    }


def ordered(found: UploadBatch, chosen: str) -> QuerySet[Upload]:
    """Failures first; then as they came, the members of an archive below it."""
    rows = found.uploads.select_related("parent", "duplicate_of")
    if chosen:
        return rows.filter(state__in=FILTERS[chosen]).order_by("pk")
    only_document = Document.objects.filter(upload=OuterRef("pk")).values("uid")[:1]
    return rows.annotate(
        failed_first=Case(
            When(state=UploadState.FAILED, then=Value(0)),
            default=Value(1),
            output_field=IntegerField(),
        ),
        family=Coalesce(F("parent_id"), F("pk")),
        document_uid=Case(
            When(documents_done=1, then=Subquery(only_document)), default=Value(None)
        ),
    ).order_by("failed_first", "family", F("parent_id").asc(nulls_first=True), "pk")


def _rows(page: Any, *, paused: bool) -> list[Row]:
    """A member is drawn nested where its archive stands somewhere above it on the same page."""
    seen: set[int] = set()
    rows = []
    for upload in page:
        state = UploadState(upload.state)
        rows.append(
            Row(
                upload=upload,
                state="Paused" if paused and state == UploadState.RECEIVED else str(state.label),
                badge=BADGES.get(state, ""),
                step=STEPS.get(state, 3),
                nested=upload.parent_id in seen,
                document_uid=getattr(upload, "document_uid", None),
            )
        )
        seen.add(upload.pk)
    return rows


def _tabs(counts: Mapping[str, int], chosen: str, total: int) -> list[Tab]:
    labels = {
        "failed": "Failed",
        "working": "In work",
        "waiting": "Waiting",
        "ready": "Ready",
        "duplicate": "Duplicates",
        "cancelled": "Cancelled",
    }
    tabs = [Tab("", "All", total, "", not chosen)]
    for name, states in FILTERS.items():
        count = sum(counts.get(state, 0) for state in states)
        if count or name == chosen:
            tabs.append(Tab(name, labels[name], count, f"state={name}", name == chosen))
    return tabs


def time_left(seconds: float | None) -> str:
    """ "40 s", "12 min", "3 h 5 min"; empty while it is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _query(request: HttpRequest) -> str:
    """Filter and page of the list, to return to them after an action."""
    source = request.POST if request.method == "POST" else request.GET
    kept = {name: source.get(name, "") for name in ("state", "page")}
    return urlencode({name: value for name, value in kept.items() if value})


def _wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").startswith("application/json")


def _user(request: HttpRequest) -> Any:
    return request.user if request.user.is_authenticated else None
