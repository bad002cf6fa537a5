"""Records of what happened, and the versions: to read, not to change."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from searchapp.models import (
    Calibration,
    ConfigActivation,
    Generation,
    Judgment,
    SavedQuery,
    SearchConfig,
    Trace,
)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """For records of what happened: nobody adds, changes or deletes them here."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(SearchConfig)
class SearchConfigAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Versions are made and activated on the tuning page; a draft may be corrected here."""

    list_display = [
        "__str__",
        "collection",
        "version",
        "frozen_at",
        "fusion",
        "rerank_depth",
        "model",
        "created_by",
    ]
    list_filter = ["fusion", "bm25_variant", ("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection", "created_by"]
    search_fields = ["collection__name", "collection__slug", "instruction"]
    readonly_fields = ["collection", "version", "created_by", "created_at", "frozen_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if isinstance(obj, SearchConfig) and obj.frozen_at is not None:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def view_on_site(self, obj: SearchConfig) -> str:
        return reverse("collection_tuning", args=[obj.collection.slug])


@admin.register(ConfigActivation)
class ConfigActivationAdmin(ReadOnlyAdmin):
    list_display = ["config", "collection", "activated_by", "activated_at", "reason"]
    list_filter = [("collection", admin.RelatedOnlyFieldListFilter), "activated_at"]
    list_select_related = ["config", "collection", "activated_by"]
    search_fields = ["reason", "collection__name"]


@admin.register(SavedQuery)
class SavedQueryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["text", "collection", "created_by", "created_at"]
    list_filter = [("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection", "created_by"]
    search_fields = ["text"]
    autocomplete_fields = ["collection", "created_by"]


@admin.register(Judgment)
class JudgmentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Given on the search page or imported; what is wrong may be deleted here."""

    list_display = ["query", "path", "grade", "collection", "source", "judged_by", "judged_at"]
    list_filter = ["grade", "source", ("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection", "judged_by"]
    search_fields = ["query", "path"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Calibration)
class CalibrationAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "collection", "state", "model", "kind", "created_by", "created_at"]
    list_filter = ["state", "kind", ("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection", "created_by"]

    def view_on_site(self, obj: Calibration) -> str:
        return reverse("collection_calibration", args=[obj.collection.slug])


@admin.register(Trace)
class TraceAdmin(ReadOnlyAdmin):
    list_display = ["query", "collection", "user", "config", "rerank_status", "created_at"]
    list_filter = ["rerank_status", ("collection", admin.RelatedOnlyFieldListFilter), "created_at"]
    list_select_related = ["collection", "user", "config"]
    search_fields = ["query"]
    list_per_page = 50
    show_full_result_count = False
    exclude = ["result"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trace]:
        return super().get_queryset(request).defer("result")

    def view_on_site(self, obj: Trace) -> str:
        return reverse("trace", args=[obj.uid])


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    list_display = [
        "__str__",
        "collection",
        "state",
        "model",
        "dimension",
        "has_ann_index",
        "created_at",
    ]
    list_filter = ["state", "model", ("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection"]
