"""API keys of everybody: to make, to look up, to revoke; and what was asked with them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from searchapp.models import ApiKey, ApiUsage, Scope

from .records import ReadOnlyAdmin


class NewKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable when run
    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = ApiKey
        fields = ["owner", "name", "scopes", "every_collection", "collections", "expires_at"]
        help_texts = {
            "owner": "The key may never do more than this account.",
            "every_collection": "Every collection the owner may use. Else only those named here.",
            "expires_at": "Empty: until it is revoked.",
        }

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if bool(values.get("collections")) == bool(values.get("every_collection")):
            self.add_error("collections", "Either every collection, or those named here.")
        same = {name: values.get(name) for name in ("owner", "name")}
        if ApiKey.objects.filter(**same, revoked_at=None).exists():
            self.add_error("name", "The owner has a key of this name. Revoke that one first.")
        return values


class StandingFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("working", "In use"), ("ended", "Revoked, expired or without an active owner")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        working = ApiKey.objects.working().values("pk")
        if self.value() == "working":
            return queryset.filter(pk__in=working)
        return queryset.exclude(pk__in=working) if self.value() == "ended" else queryset


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A key is made once and then only revoked: another scope is another key."""

    form = NewKeyForm
    list_display = [
        "name",
        "prefix",
        "owner",
        "scopes_shown",
        "every_collection",
        "created_at",
        "last_used_at",
        "expires_at",
        "revoked_at",
    ]
    list_filter = [StandingFilter, "every_collection"]
    list_select_related = ["owner"]
    search_fields = ["name", "prefix", "owner__username"]
    autocomplete_fields = ["collections"]
    actions = ["revoke"]
    list_per_page = 50

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return obj is None and super().has_change_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        if obj is None:
            return []
        own = ["owner", "name", "prefix", "scopes", "every_collection", "collections"]
        return [*own, "created_at", "last_used_at", "expires_at", "revoked_at"]

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[Any]:
        return list(self.get_readonly_fields(request, obj) or NewKeyForm.Meta.fields)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        """Only superusers make keys for others: a key of an owner is as good as their password."""
        if db_field.name == "owner":
            users = get_user_model()._default_manager.filter(is_active=True)
            if not getattr(request.user, "is_superuser", False):
                users = users.filter(username=request.user.get_username())
            kwargs |= {"queryset": users, "initial": request.user.pk}
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(
        self,
        request: HttpRequest,
        obj: ApiKey,
        form: forms.ModelForm,  # type: ignore[type-arg]
        change: bool,
    ) -> None:
        """The plain text stays with the request, whose answer shows it."""
        if not change:
            request.META["podium.new_key"] = obj.renew()
            obj.save()

    @method_decorator(never_cache)
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # What follows a save is the key, whichever button it was.
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **one_button})

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """The key, once. A redirect would have to keep it somewhere in between."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"The key “{obj.name}”",
            "opts": self.model._meta,
            "key": obj,
            "plain": request.META.pop("podium.new_key"),
        }
        return TemplateResponse(request, "admin/searchapp/new_api_key.html", context)

    @admin.display(description="May")
    def scopes_shown(self, obj: ApiKey) -> str:
        return ", ".join(obj.scopes)

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = ApiKey.objects.filter(pk__in=queryset.values("pk")).revoke()
        messages.success(request, f"{count} revoked: calls with them are refused from now on.")


@admin.register(ApiUsage)
class ApiUsageAdmin(ReadOnlyAdmin):
    list_display = ["key", "hour", "family", "calls", "refused", "pairs", "bytes", "tokens"]
    list_filter = ["family", "hour"]
    list_select_related = ["key"]
    search_fields = ["key__name", "key__owner__username"]
    date_hierarchy = "hour"
    list_per_page = 50
