"""One stored search, exactly as it was: what ran, how long it took, where each candidate stood."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from searchapp.forms.search import SearchForm, SearchParameters
from searchapp.models import Document, Trace
from searchapp.search import display, explain
from searchapp.search.result import SearchResult

from .judging import judged_by
from .results import document_url, results_context

MAX_EXPLAINED = 5


@require_safe
@never_cache
def trace(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The trace itself, or with ?view=list or ?view=compare the page as its searcher saw it."""
    found = get_object_or_404(
        Trace.objects.visible_to(request.user).select_related("collection", "config", "user"),
        uid=uid,
    )
    result = SearchResult.from_json(found.result)
    form = SearchForm(request.GET)
    form.is_valid()
    tab = request.GET.get("view") if request.GET.get("view") in {"list", "compare"} else "trace"
    judged = judged_by(request, found)
    context = results_context(found, result, form.parameters, judged=judged, stored=True)
    table = display.titles(sorted(result.hits, key=lambda hit: hit.rank))
    context |= {
        "tab": tab,
        "collectable": False,
        "address": reverse("trace", args=[found.uid]),
        "again_url": f"{reverse('search')}?{_again(found).query_string()}",
        "table": [(row, "" if row.deleted else document_url(row, found.query)) for row in table],
        "deleted_count": sum(1 for row in table if row.deleted),
        "legs": [(name, result.legs[key]) for key, name in _LEGS if key in result.legs],
        "filter_texts": _filter_texts(result),
        "missing": request.GET.get("missing", "").strip()[:1024],
    }
    if context["missing"]:
        context["explanations"] = _explanations(found, context["missing"])
    return render(request, "search/trace.html", context)


_LEGS = [("lexical", "Lexical leg (words)"), ("dense", "Dense leg (meaning)")]


def _again(found: Trace) -> SearchParameters:
    """The same search, to be run anew."""
    metadata = found.filters.get("metadata", {})
    pairs = [(key, value) for key, values in metadata.items() for value in _listed(values)]
    where = found.filters.get("where")
    return SearchParameters(
        query=found.query,
        collection=found.collection.slug,
        instruction=found.instruction,
        types=tuple(_listed(found.filters.get("media_type", []))),
        metadata=tuple(pairs),
        conditions=(json.dumps(where, ensure_ascii=False),) if where else (),
    )


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _filter_texts(result: SearchResult) -> list[str]:
    texts = [f"type {each}" for each in _listed(result.filters.get("media_type", []))]
    for key, values in result.filters.get("metadata", {}).items():
        texts.append(f"{key} = {' or '.join(_listed(values))}")
    if where := result.filters.get("where"):
        texts.append(json.dumps(where, ensure_ascii=False))
    return texts


def _explanations(found: Trace, wanted: str) -> list[tuple[Document, Any]]:
    """Why each document that the text may mean is not among the hits, or that it is."""
    documents = Document.objects.filter(collection=found.collection)
    try:
        chosen = list(documents.filter(uid=UUID(wanted.rstrip("/").rsplit("/", 1)[-1])))
    except (ValueError, ValidationError):
        named = Q(path__icontains=wanted) | Q(title__icontains=wanted)
        chosen = list(documents.filter(named).order_by("path")[:MAX_EXPLAINED])
    return [(each, explain.explain_missing(found, each)) for each in chosen]
