"""Collections and documents. They are deleted through searchapp.search.erasing, never by the ORM
alone: postings and vectors would stay behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from searchapp.ingest.receive import receive
from searchapp.ingest.writing import delete_documents
from searchapp.models import (
    Collection,
    Document,
    Membership,
    Upload,
)
from searchapp.search.erasing import erase_collection

from .uploads import say_retried


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    extra = 1
    autocomplete_fields = ["user"]


class MultipleFileInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class MultipleFileField(forms.FileField):
    """Several files of one input; `clean` gives a list."""

    widget = MultipleFileInput

    def clean(self, data: Any, initial: Any = None) -> Any:
        files = data if isinstance(data, list | tuple) else [data]
        # Empty files are received too: their batch says what is wrong with them.
        return [super(MultipleFileField, self).clean(each, initial) for each in files]


class UploadFilesForm(forms.Form):
    chosen = MultipleFileField(
        label="Files", help_text="Several at once, archives too.", allow_empty_file=True
    )


@admin.register(Collection)
class CollectionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = [
        "name",
        "slug",
        "language",
        "is_public",
        "documents_shown",
        "created_at",
        "links",
    ]
    list_filter = ["is_public", "language"]
    search_fields = ["name", "slug", "description"]
    readonly_fields = ["active_config", "active_generation", "created_by", "created_at", "links"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [MembershipInline]
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Collection]:
        rows: QuerySet[Collection] = super().get_queryset(request)
        return rows.annotate(document_count=Count("documents"))

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: Collection | None = None
    ) -> dict[str, Sequence[str]]:
        return {} if obj else dict(self.prepopulated_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Collection | None = None) -> list[str]:
        fields = [str(name) for name in self.readonly_fields]
        if obj is not None:
            # Addresses name the slug; terms are made by the language.
            fields += ["slug", *(["language"] if obj.documents.exists() else [])]
        return fields

    def save_model(
        self,
        request: HttpRequest,
        obj: Collection,
        form: forms.ModelForm,  # type: ignore[type-arg]
        change: bool,
    ) -> None:
        """A new collection gets its first config; a changed one keeps its active version."""
        if change:
            if form.changed_data:
                obj.save(update_fields=form.changed_data)
            return
        values = {
            name: form.cleaned_data[name]
            for name in ("description", "language", "is_public", "suggested_queries")
        }
        made = Collection.objects.create_with_owner(slug=obj.slug, name=obj.name, **values)
        Collection.objects.filter(pk=made.pk).update(created_by=request.user)
        # The admin goes on with its own instance: inlines and the log need the row's key.
        made.refresh_from_db()
        obj.__dict__.update(made.__dict__)

    def delete_model(self, request: HttpRequest, obj: Collection) -> None:
        erase_collection(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Collection]) -> None:
        for collection in queryset:
            erase_collection(collection)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Names and counts: a tree of every passage would be as long as the collection."""
        return _deleted_summary(self, request, objs)

    def view_on_site(self, obj: Collection) -> str:
        return reverse("collection", args=[obj.slug])

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<int:pk>/upload/",
            self.admin_site.admin_view(self.upload_view),
            name="searchapp_collection_upload",
        )
        return [own, *super().get_urls()]

    def upload_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Many files at once into one batch."""
        collection = get_object_or_404(Collection, pk=pk)
        if not self.has_change_permission(request, collection):
            raise PermissionDenied
        form = UploadFilesForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            files = [(each.name, each) for each in form.cleaned_data["chosen"]]
            batch = receive(collection, files, request.user)
            noun = "file is" if len(files) == 1 else "files are"
            messages.success(request, f"{len(files)} {noun} received.")
            address = reverse("admin:searchapp_upload_changelist")
            return HttpResponseRedirect(f"{address}?batch__id__exact={batch.pk}")
        context = {
            **self.admin_site.each_context(request),
            "title": f"Upload files into {collection.name}",
            "opts": self.model._meta,
            "collection": collection,
            "form": form,
        }
        return TemplateResponse(request, "admin/searchapp/upload_files.html", context)

    @admin.display(description="Documents", ordering="document_count")
    def documents_shown(self, obj: Any) -> SafeString:
        address = reverse("admin:searchapp_document_changelist")
        link = '<a href="{}?collection__id__exact={}">{}</a>'
        return format_html(link, address, obj.pk, obj.document_count)

    @admin.display(description="Pages")
    def links(self, obj: Collection) -> SafeString | str:
        if not obj.pk:
            return "–"
        return format_html(
            '<a href="{}">Upload files</a> · <a href="{}">Overview</a> · <a href="{}">Uploads</a>'
            ' · <a href="{}">Tuning</a>',
            reverse("admin:searchapp_collection_upload", args=[obj.pk]),
            reverse("collection", args=[obj.slug]),
            reverse("collection_uploads", args=[obj.slug]),
            reverse("collection_tuning", args=[obj.slug]),
        )


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = [
        "path",
        "title",
        "collection",
        "status",
        "media_type",
        "passage_count",
        "size_bytes",
        "created_at",
    ]
    list_filter = ["status", ("collection", admin.RelatedOnlyFieldListFilter), "media_type"]
    search_fields = ["path", "title"]
    list_select_related = ["collection"]
    list_per_page = 50
    show_full_result_count = False
    date_hierarchy = "created_at"
    actions = ["read_again"]
    readonly_fields = [
        "uid", "collection", "upload", "path", "media_type", "size_bytes", "page_count",
        "passage_count", "status", "created_at", "updated_at",
    ]  # fmt: skip

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def view_on_site(self, obj: Document) -> str:
        return reverse("document", args=[obj.uid])

    def delete_model(self, request: HttpRequest, obj: Document) -> None:
        delete_documents([obj.pk])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        delete_documents(queryset.values_list("pk", flat=True))

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        return _deleted_summary(self, request, objs)

    @admin.action(
        description="Read the chosen documents' failed files again", permissions=["change"]
    )
    def read_again(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        uploads = Upload.objects.filter(documents__in=queryset).distinct()
        say_retried(request, uploads)


def _deleted_summary(
    model_admin: admin.ModelAdmin,  # type: ignore[type-arg]
    request: HttpRequest,
    objs: Any,
) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
    """What Django's confirmation shows: names, counts, missing permissions, protected rows."""
    rows = list(objs)
    noun = str(model_admin.opts.verbose_name_plural)
    allowed = model_admin.has_delete_permission(request)
    return [str(row) for row in rows], {noun: len(rows)}, set() if allowed else {noun}, []
