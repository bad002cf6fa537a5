"""The pages of one collection: list, creation, overview, settings, deletion."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError, transaction
from django.db.models import Case, CharField, Count, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from searchapp.forms.collections import (
    CollectionForm,
    DeleteCollectionForm,
    NewCollectionForm,
)
from searchapp.models import (
    OPEN_STATES,
    Collection,
    Document,
    DocumentStatus,
    Membership,
    PendingVector,
    Role,
    Upload,
    UploadState,
)
from searchapp.models.corpus import AnyUser
from searchapp.search.erasing import erase_collection

from .access import Access, opened
from .uploads import limits


@require_safe
@never_cache
def collections(request: HttpRequest) -> HttpResponse:
    """Every collection this user can see."""
    rows = with_counts(Collection.objects.visible_to(request.user), request.user)
    return render(request, "collections/list.html", {"collections": rows})


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@never_cache
def create(request: HttpRequest) -> HttpResponse:
    """Any account may create a collection and owns it then."""
    form = NewCollectionForm(request.POST or None)
    if form.is_bound and form.is_valid():
        collection = _created(form, request.user)
        messages.success(request, f"{collection.name} is ready for its first files.")
        return redirect("collection_uploads", collection.slug)
    status = 422 if form.is_bound else 200
    return render(request, "collections/create.html", {"form": form}, status=status)


@require_safe
@never_cache
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """What is in the collection, how it searches and who may do what."""
    access = opened(request, slug)
    collection = access.collection
    figures = collection.documents.aggregate(
        documents=Count("pk"),
        passages=Coalesce(Sum("passage_count"), 0),
        size=Coalesce(Sum("size_bytes"), 0),
        indexing=Count("pk", filter=Q(status=DocumentStatus.INDEXING)),
    )
    generation = collection.active_generation
    memberships = collection.memberships.select_related("user").order_by("role", "user__username")
    context = {
        "access": access,
        "collection": collection,
        "tab": "overview",
        "figures": figures,
        "generation": generation,
        "pending": PendingVector.objects.filter(generation=generation).count() if generation else 0,
        "activation": collection.activations.select_related("activated_by", "config").first(),
        "memberships": memberships if access.role else [],
        "open_uploads": collection.uploads.filter(state__in=OPEN_STATES).count(),
        "failed_uploads": collection.uploads.filter(state=UploadState.FAILED).count(),
        "limits": limits(),
    }
    return render(request, "collections/overview.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def settings(request: HttpRequest, slug: str) -> HttpResponse:
    """Name, description, language, who may search, suggested queries."""
    access = opened(request, slug, Role.OWNER)
    collection = access.collection
    # A row of its own: the form writes typed values into it, valid or not.
    form = CollectionForm(request.POST or None, instance=Collection.objects.get(pk=collection.pk))
    if form.is_bound and form.is_valid():
        # Only these fields: the active version may change in the meantime.
        form.save(commit=False).save(update_fields=list(form.fields))
        messages.success(request, "The settings are saved.")
        return redirect("collection_settings", slug)
    return _settings_page(request, access, form, DeleteCollectionForm(collection))


@require_POST
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Deletes the collection with all its documents, once its slug has been typed."""
    access = opened(request, slug, Role.OWNER)
    confirmation = DeleteCollectionForm(access.collection, request.POST)
    if not confirmation.is_valid():
        return _settings_page(
            request, access, CollectionForm(instance=access.collection), confirmation
        )
    erase_collection(access.collection)
    messages.success(request, f"{access.collection.name} and all its documents are deleted.")
    return redirect("collections")


def with_counts(queryset: QuerySet[Collection], user: AnyUser) -> QuerySet[Any, Any]:
    """Adds document_count, passage_count, open_count, failed_count and the user's role_code.

    Subqueries rather than joins: joined, each count would be multiplied by the others.
    """
    documents = Document.objects.filter(collection=OuterRef("pk")).values("collection")
    uploads = Upload.objects.filter(collection=OuterRef("pk")).values("collection")
    role: Any = Value("", output_field=CharField())
    if user is not None and user.is_authenticated:
        own = Membership.objects.filter(collection=OuterRef("pk"), user_id=user.pk)
        role = Coalesce(Subquery(own.values("role")[:1]), Value(""))
        if getattr(user, "is_superuser", False):
            role = Case(default=Value(str(Role.OWNER)), output_field=CharField())
    return queryset.annotate(
        document_count=_counted(documents.annotate(n=Count("pk"))),
        passage_count=_counted(documents.annotate(n=Sum("passage_count"))),
        open_count=_counted(uploads.filter(state__in=OPEN_STATES).annotate(n=Count("pk"))),
        failed_count=_counted(uploads.filter(state=UploadState.FAILED).annotate(n=Count("pk"))),
        role_code=role,
    )


def _counted(queryset: QuerySet[Any, Any]) -> Coalesce:
    return Coalesce(Subquery(queryset.values("n")[:1]), 0)


def _created(form: NewCollectionForm, user: AnyUser) -> Collection:
    """A second collection of the same name in the same moment takes the next free slug."""
    values = form.cleaned_data
    for _ in range(5):
        try:
            with transaction.atomic():
                return Collection.objects.create_with_owner(
                    slug=form.free_slug(), user=user, **values
                )
        except IntegrityError:
            continue
    raise RuntimeError(f"no free slug for {values['name']!r}")


def _settings_page(
    request: HttpRequest,
    access: Access,
    form: CollectionForm,
    confirmation: DeleteCollectionForm,
) -> HttpResponse:
    bound = form.is_bound or confirmation.is_bound
    context = {
        "access": access,
        "collection": access.collection,
        "form": form,
        "confirmation": confirmation,
        "tab": "settings",
    }
    return render(request, "collections/settings.html", context, status=422 if bound else 200)
