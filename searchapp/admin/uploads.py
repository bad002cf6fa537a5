"""Uploads and their batches, with the acts that change them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from searchapp.ingest import control
from searchapp.models import (
    OPEN_STATES,
    Upload,
    UploadBatch,
    UploadState,
)


@admin.register(UploadBatch)
class UploadBatchAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = [
        "__str__",
        "collection",
        "created_by",
        "created_at",
        "paused",
        "files",
        "failed",
        "still_open",
    ]
    list_filter = ["paused", ("collection", admin.RelatedOnlyFieldListFilter), "created_at"]
    list_select_related = ["collection", "created_by"]
    search_fields = ["collection__name", "collection__slug", "uploads__name"]
    readonly_fields = ["uid", "collection", "created_by", "created_at", "paused"]
    actions = ["pause", "resume", "cancel", "retry_failed"]
    list_per_page = 50
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[UploadBatch]:
        rows: QuerySet[UploadBatch] = super().get_queryset(request)
        failed, still_open = Q(uploads__state=UploadState.FAILED), Q(uploads__state__in=OPEN_STATES)
        return rows.annotate(
            file_count=Count("uploads", distinct=True),
            failed_count=Count("uploads", filter=failed, distinct=True),
            open_count=Count("uploads", filter=still_open, distinct=True),
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def view_on_site(self, obj: UploadBatch) -> str:
        return reverse("upload_batch", args=[obj.uid])

    @admin.display(description="Files", ordering="file_count")
    def files(self, obj: Any) -> SafeString:
        address = reverse("admin:searchapp_upload_changelist")
        link = '<a href="{}?batch__id__exact={}">{}</a>'
        return format_html(link, address, obj.pk, obj.file_count)

    @admin.display(description="Failed", ordering="failed_count")
    def failed(self, obj: Any) -> int:
        return int(obj.failed_count)

    @admin.display(description="Open", ordering="open_count")
    def still_open(self, obj: Any) -> int:
        return int(obj.open_count)

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: QuerySet[UploadBatch]) -> None:
        _each(request, queryset, control.pause, "paused")

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[UploadBatch]) -> None:
        _each(request, queryset, control.resume, "resumed")

    @admin.action(description="Cancel what is not finished", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[UploadBatch]) -> None:
        _each(request, queryset, control.cancel, "cancelled")

    @admin.action(description="Retry failed files", permissions=["change"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[UploadBatch]) -> None:
        _each(request, queryset, control.retry_failed, "tried again")


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = [
        "name",
        "collection",
        "state",
        "message",
        "size_bytes",
        "documents_done",
        "passages_done",
        "attempts",
        "created_at",
    ]
    list_filter = [
        "state",
        "retryable",
        ("collection", admin.RelatedOnlyFieldListFilter),
        "created_at",
    ]
    list_select_related = ["collection"]
    search_fields = ["name", "checksum", "message"]
    actions = ["retry", "cancel"]
    list_per_page = 50
    show_full_result_count = False
    exclude = ["lease_token", "file"]

    def get_readonly_fields(self, request: HttpRequest, obj: Upload | None = None) -> list[str]:
        return [
            field.name
            for field in self.model._meta.fields
            if field.name not in {"id", *self.exclude}
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "batch__id__exact" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def view_on_site(self, obj: Upload) -> str:
        return reverse("upload_batch", args=[obj.batch.uid])

    @admin.action(description="Retry", permissions=["change"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        say_retried(request, queryset)

    @admin.action(description="Cancel", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        count = sum(1 for upload in queryset if control.cancel_upload(upload))
        messages.success(request, f"{count} cancelled; the others had finished.")


def _each(
    request: HttpRequest,
    queryset: QuerySet[UploadBatch],
    act: Callable[[UploadBatch], object],
    done: str,
) -> None:
    # Plain rows: the list's counts are of no use to the act.
    batches = list(UploadBatch.objects.filter(pk__in=[each.pk for each in queryset]))
    for batch in batches:
        act(batch)
    messages.success(request, f"{len(batches)} batch{'' if len(batches) == 1 else 'es'} {done}.")


def say_retried(request: HttpRequest, uploads: QuerySet[Upload]) -> None:
    count = sum(1 for upload in uploads if control.retry(upload))
    messages.success(
        request,
        f"{count} file{'' if count == 1 else 's'} will be read again; a retry helps no other.",
    )
