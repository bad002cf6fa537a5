"""Tuning: the draft of a search config, its preview on saved queries, activation, history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from searchapp.forms.tuning import DraftForm, SavedQueryForm
from searchapp.models import ConfigActivation, Role, SavedQuery, SearchConfig
from searchapp.search import configs

from .access import Access, opened, whole
from .preview import preview

HISTORY_LENGTH = 30


@dataclass(frozen=True)
class Act:
    """One line of the history: an activation with what it changed."""

    activation: ConfigActivation
    changes: Sequence[configs.Change]
    is_active: bool


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def tuning(request: HttpRequest, slug: str) -> HttpResponse:
    """GET: the page, with `query` a preview. POST: one of its buttons.

    Every button inside the draft's form saves the draft first, so nothing typed is ever lost.
    """
    access = opened(request, slug, Role.OWNER)
    if request.method != "POST":
        draft = configs.open_draft(access.collection) or _unsaved_draft(access)
        return _page(request, access, DraftForm(draft))
    action = request.POST.get("action", "")
    if action == "roll-back":
        return _roll_back(request, access)
    if action == "discard":
        configs.discard_draft(access.collection)
        messages.success(request, "The draft is discarded; it starts from the active version.")
        return redirect("collection_tuning", slug)
    if action in {"save", "add-query", "activate"} or {"show", "remove"} & set(request.POST):
        return _with_draft(request, access, action)
    raise PermissionDenied(f"no action {action!r}")


def _with_draft(request: HttpRequest, access: Access, action: str) -> HttpResponse:
    collection = access.collection
    draft = configs.draft_for(collection, request.user)
    form = DraftForm(draft, request.POST)
    if not form.save():
        return _page(request, access, form)
    if action == "activate":
        return _activate(request, access, draft)
    if request.POST.get("text", "").strip():
        adding = SavedQueryForm(request.POST)
        query = adding.save_for(collection, request.user) if adding.is_valid() else None
        return _to(access, query) if query else _page(request, access, DraftForm(draft), adding)
    if "remove" in request.POST:
        collection.saved_queries.filter(pk=whole(request.POST["remove"])).delete()
    elif action == "save":
        messages.success(request, f"The draft of version {draft.version} is saved.")
    return _to(access, _chosen(request, access))


def _activate(request: HttpRequest, access: Access, draft: SearchConfig) -> HttpResponse:
    active = access.collection.active_config
    if active is not None and not configs.diff(active, draft):
        problem = f"The draft is the same as version {active.version}, which is active."
    else:
        reason, seen = request.POST.get("reason", ""), whole(request.POST.get("active", ""))
        problem = configs.activate(draft, request.user, reason, seen or None).problem
    if problem:
        return _page(request, access, DraftForm(draft), activation_problem=problem)
    messages.success(request, f"Version {draft.version} is active.")
    return redirect("collection_tuning", access.collection.slug)


def _roll_back(request: HttpRequest, access: Access) -> HttpResponse:
    version = whole(request.POST.get("version", ""))
    target = get_object_or_404(access.collection.configs, version=version)
    outcome = configs.roll_back(
        access.collection,
        target,
        request.user,
        request.POST.get("reason", ""),
        whole(request.POST.get("active", "")) or None,
    )
    if outcome.problem:
        messages.error(request, outcome.problem)
    else:
        messages.success(request, f"Version {target.version} is active again.")
    return redirect("collection_tuning", access.collection.slug)


def _page(
    request: HttpRequest,
    access: Access,
    form: DraftForm,
    adding: SavedQueryForm | None = None,
    *,
    activation_problem: str = "",
) -> HttpResponse:
    collection, draft = access.collection, form.draft
    collection.refresh_from_db(fields=["active_config"])
    active = collection.active_config
    query = _chosen(request, access)
    refused = (form.is_bound and not form.is_valid()) or adding is not None or activation_problem
    context: dict[str, Any] = {
        "access": access,
        "collection": collection,
        "tab": "tuning",
        "form": form,
        "draft": draft,
        "seen": configs.fingerprint(draft),
        "active": active,
        "changes": configs.diff(active, draft),
        "queries": collection.saved_queries.all(),
        "query": query,
        "adding": adding or SavedQueryForm(),
        "activation_problem": activation_problem,
        "reason": request.POST.get("reason", "") if activation_problem else "",
        "history": history(access),
        "preview": None,
    }
    if query is not None and active is not None and not refused:
        rows = 25 if request.GET.get("rows") == "25" else 10
        context["preview"] = preview(active, draft, query.text, request.user, rows)
        context["row_links"] = _row_links(access, query, rows)
    return render(request, "tuning/tuning.html", context, status=422 if refused else 200)


def history(access: Access) -> list[Act]:
    """The latest activations, newest first, each with its difference to the one before."""
    activations = access.collection.activations.select_related(
        "config", "previous", "activated_by", "config__created_by"
    )[:HISTORY_LENGTH]
    acts = []
    for index, act in enumerate(activations):
        changes = configs.diff(act.previous, act.config)
        acts.append(Act(act, changes, is_active=index == 0))
    return acts


def _unsaved_draft(access: Access) -> SearchConfig:
    """What a draft would be, not stored before anybody saves it."""
    active = access.collection.active_config
    last = access.collection.configs.order_by("-version").first()
    return SearchConfig(
        collection=access.collection,
        version=last.version + 1 if last else 1,
        **(configs.values(active) if active else {}),
    )


def _chosen(request: HttpRequest, access: Access) -> SavedQuery | None:
    posted = request.POST.get("show") or request.POST.get("query")
    number = whole(posted or request.GET.get("query", ""))
    return access.collection.saved_queries.filter(pk=number).first()


def _to(access: Access, query: SavedQuery | None) -> HttpResponse:
    address = reverse("collection_tuning", args=[access.collection.slug])
    return redirect(f"{address}?query={query.pk}#preview" if query else address)


def _row_links(access: Access, query: SavedQuery, rows: int) -> list[dict[str, Any]]:
    address = reverse("collection_tuning", args=[access.collection.slug])
    return [
        {
            "rows": each,
            "url": f"{address}?query={query.pk}&rows={each}#preview",
            "current": each == rows,
        }
        for each in (10, 25)
    ]
