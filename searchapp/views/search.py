"""The search pages: at once in first-stage order, then reranked by one further request."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from searchapp import metrics
from searchapp.engine import remote
from searchapp.forms.search import SearchForm, SearchParameters
from searchapp.models import Collection, Role, Trace
from searchapp.models.uploads import OPEN_STATES
from searchapp.search import filters, pipeline, traces
from searchapp.search.facets import facets, type_name
from searchapp.search.result import SearchResult

from .judging import judged_by
from .results import results_context

# A stored search is continued (its other pages, its other order) this long, then searched again.
FRESH = timedelta(hours=1)


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """Where a search begins: the collections one can see, with their suggested queries."""
    visible = Collection.objects.visible_to(request.user)
    counted = visible.annotate(document_count=Count("documents"))
    context = {"collections": counted, "may_create": _address("collection_create")}
    return render(request, "search/home.html", context)


@require_safe
@never_cache
def search(request: HttpRequest) -> HttpResponse:
    """One search. A browser that only prefetches is sent away: a search costs a rerank."""
    if "prefetch" in request.headers.get("Sec-Purpose", ""):
        return HttpResponse(status=503)
    form = SearchForm(request.GET)
    valid = form.is_valid()
    parameters = form.parameters
    visible = Collection.objects.visible_to(request.user)
    collections = list(visible.select_related("active_config", "active_generation"))
    collection = _chosen(collections, parameters.collection)
    if collection is None:
        return home(request)
    parameters = parameters.with_changes(
        collection=collection.slug, instruction=_override(collection, parameters.instruction)
    )
    context = _page_context(collection, collections, form, parameters)
    if valid and parameters.query:
        try:
            context |= _found(request, collection, parameters)
        except (pipeline.BadQuery, filters.BadFilter) as error:
            form.add_error(None, str(error))
    status = 400 if form.errors else 200
    return render(request, "search/search.html", context, status=status)


@require_safe
@never_cache
def rerank(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The results of a stored search as a fragment, once its rerank has arrived or given up."""
    trace = get_object_or_404(
        Trace.objects.visible_to(request.user).select_related("collection", "config"), uid=uid
    )
    form = SearchForm(request.GET)
    form.is_valid()
    result = SearchResult.from_json(trace.result)
    if result.rerank.status == "pending":
        result = _collected(trace)
    stored = request.GET.get("stored") == "1"
    parameters = form.parameters.with_changes(collection=trace.collection.slug)
    judged = judged_by(request, trace)
    context = results_context(trace, result, parameters, judged=judged, stored=stored)
    return render(request, "search/_results.html", context)


@require_POST
@never_cache
def cancel(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The reader has left before the rerank came: the worker need not finish it."""
    own = request.user if request.user.is_authenticated else None
    trace = get_object_or_404(Trace.objects.visible_to(request.user).filter(user=own), uid=uid)
    if ended := traces.cancel(trace, remote.reranker()):
        metrics.observe_search(ended)
    return HttpResponse(status=204)


def _found(
    request: HttpRequest, collection: Collection, parameters: SearchParameters
) -> dict[str, Any]:
    """The results part of the page's context, from a stored search if the address names one."""
    trace, result = _continued(request, collection, parameters) or _searched(
        request, collection, parameters
    )
    if parameters.wait and result.rerank.status == "pending":
        result = _collected(trace)
    context = results_context(trace, result, parameters, judged=judged_by(request, trace))
    if not result.hits:
        context |= _reasons_for_nothing(request, collection, parameters)
    return context


def _searched(
    request: HttpRequest, collection: Collection, parameters: SearchParameters
) -> tuple[Trace, SearchResult]:
    result = pipeline.start(
        parameters.query,
        collection,
        user=request.user,
        instruction=parameters.instruction,
        filters=parameters.filters(),
        embedder=remote.embedder(),
        reranker=remote.reranker(),
    )
    if result.rerank.status != "pending":
        metrics.observe_search(result)
    trace = traces.record(result, request.user, instruction=parameters.instruction)
    # Both are at hand; the page need not ask for them again.
    trace.collection = collection
    if collection.active_config is not None:
        trace.config = collection.active_config
    return trace, result


def _collected(trace: Trace) -> SearchResult:
    try:
        result = traces.collect(trace, remote.reranker())
    except Trace.DoesNotExist:  # erased with its collection while this request waited
        raise Http404("This search is no longer kept.") from None
    metrics.observe_search(result)
    return result


def _continued(
    request: HttpRequest, collection: Collection, parameters: SearchParameters
) -> tuple[Trace, SearchResult] | None:
    """The stored search that the address names, if it is the same search, recent and one's own."""
    if parameters.trace is None:
        return None
    trace = (
        Trace.objects.visible_to(request.user)
        .filter(uid=parameters.trace, created_at__gte=timezone.now() - FRESH)
        .filter(collection=collection, query=parameters.query, config=collection.active_config_id)
        .filter(filters=filters.read_filters(parameters.filters()).as_json())
        .select_related("collection", "config")
        .first()
    )
    if trace is None or trace.instruction != parameters.instruction:
        return None
    result = SearchResult.from_json(trace.result)
    # Its reader left before the rerank came and is back: search anew.
    return None if result.rerank.code == "cancelled" else (trace, result)


def _chosen(collections: list[Collection], slug: str) -> Collection | None:
    """The named collection, else the first; raises Http404 for one that is not open to the user,
    in the same words whether or not it exists."""
    if not slug:
        return collections[0] if collections else None
    for collection in collections:
        if collection.slug == slug:
            return collection
    raise Http404("There is no such collection, or it is not open to you.")


def _override(collection: Collection, instruction: str | None) -> str | None:
    """None when the form sent the active instruction back unchanged."""
    return None if instruction == _active_instruction(collection) else instruction


def _active_instruction(collection: Collection) -> str:
    return collection.active_config.instruction if collection.active_config else ""


def _page_context(
    collection: Collection,
    collections: list[Collection],
    form: SearchForm,
    parameters: SearchParameters,
) -> dict[str, Any]:
    overridden = parameters.instruction is not None
    active = _active_instruction(collection)
    fresh = parameters.with_changes(trace=None, page=1, wait=False)
    known = facets(collection)
    base = reverse("search")
    return {
        "form": form,
        "collection": collection,
        "collections": collections,
        "parameters": parameters,
        "typed_query": form.data.get("q", ""),
        "instruction_text": parameters.instruction if overridden else active,
        "active_instruction": active,
        "instruction_overridden": overridden,
        "reset_url": f"{base}?{fresh.with_changes(instruction=None).query_string()}",
        "facets": known,
        "chips": _chips(fresh),
        "examples": [str(each) for each in collection.suggested_queries][:8],
    }


def _chips(parameters: SearchParameters) -> list[tuple[str, str]]:
    """(what it says, the address without it) of every filter."""
    base = reverse("search")
    chips = []
    for each in parameters.types:
        without = tuple(other for other in parameters.types if other != each)
        address = parameters.with_changes(types=without).query_string()
        chips.append((f"type: {type_name(each)}", f"{base}?{address}"))
    for each in parameters.languages:
        left = tuple(other for other in parameters.languages if other != each)
        address = parameters.with_changes(languages=left).query_string()
        chips.append((f"language: {each}", f"{base}?{address}"))
    for key, value in parameters.metadata:
        rest = tuple(pair for pair in parameters.metadata if pair != (key, value))
        address = parameters.with_changes(metadata=rest).query_string()
        chips.append((f"{key}: {value}", f"{base}?{address}"))
    for each in parameters.conditions:
        others = tuple(other for other in parameters.conditions if other != each)
        address = parameters.with_changes(conditions=others).query_string()
        chips.append((each, f"{base}?{address}"))
    return chips


def _reasons_for_nothing(
    request: HttpRequest, collection: Collection, parameters: SearchParameters
) -> dict[str, Any]:
    """Why a page may be without hits: nothing there yet, or filters that leave nothing."""
    unfiltered = parameters.with_changes(
        types=(), languages=(), metadata=(), conditions=(), trace=None
    )
    may_upload = Collection.objects.with_role(request.user, Role.EDITOR).filter(pk=collection.pk)
    return {
        "is_empty": not collection.documents.exists(),
        "is_indexing": collection.uploads.filter(state__in=OPEN_STATES).exists(),
        "unfiltered_url": f"{reverse('search')}?{unfiltered.query_string()}"
        if parameters.filters()
        else "",
        "uploads_url": _address("collection_uploads", collection.slug)
        if may_upload.exists()
        else "",
    }


def _address(name: str, *args: str) -> str:
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""
