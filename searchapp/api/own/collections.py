"""/api/v1/collections: list, create, read, change, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from django.db import IntegrityError, transaction
from django.db.models import Count
from pydantic import AfterValidator
from pydantic import Field as Limited

from searchapp.forms.collections import MAX_SUGGESTED_CHARACTERS, MAX_SUGGESTED_QUERIES
from searchapp.models import Collection, Document, Family, Scope
from searchapp.models.corpus import free_slug
from searchapp.search.erasing import erase_collection
from searchapp.search.vectors import ensure_generation

from ..auth import Caller
from ..collection_names import name_of
from ..refusals import Refusal
from ..v1.records import counts
from .endpoint import GONE, Answer, Call, endpoint
from .places import held, seen
from .schemas import Body, Nothing, Shown, Text

Language = Literal[
    "en", "da", "de", "es", "fi", "fr", "it", "ja", "ko", "nl", "no", "pt", "ru", "sv", "zh", "none"
]


def _named(text: str) -> str:
    name = " ".join(text.split())
    if not name:
        raise ValueError("give the collection a name")
    return name


Name = Annotated[Text, Limited(min_length=1, max_length=200), AfterValidator(_named)]
Description = Annotated[Text, Limited(max_length=10_000)]
Suggested = Annotated[
    list[Annotated[Text, Limited(min_length=1, max_length=MAX_SUGGESTED_CHARACTERS)]],
    Limited(max_length=MAX_SUGGESTED_QUERIES),
]


class NewCollection(Body):
    name: Name
    description: Description = ""
    language: Language = "en"
    is_public: bool = False
    suggested_queries: Suggested = []


class Changes(Body):
    """Only what is named changes."""

    name: Name | None = None
    description: Description | None = None
    language: Language | None = None
    is_public: bool | None = None
    suggested_queries: Suggested | None = None


class CollectionRecord(Shown):
    """`slug` is its name in addresses and never changes; `v1_name` is what `/v1` calls it.
    `active_version`: of its search config."""

    slug: str
    v1_name: str
    name: str
    description: str
    language: str
    is_public: bool
    suggested_queries: list[str]
    created_at: datetime
    active_version: int | None
    documents: int


class CollectionList(Shown):
    collections: list[CollectionRecord]


class Status(Shown):
    """Documents by how far they are; `parsing` waits for its file to be read."""

    documents: int
    parsing: int
    indexing: int
    indexed: int
    failed: int


@endpoint(
    "GET",
    "collections",
    Scope.SEARCH,
    Family.COLLECTIONS,
    or_scope=Scope.INGEST,
    answer=CollectionList,
)
def list_collections(call: Call, asked: Nothing) -> Answer:
    """Every collection that the key may know of."""
    rows = call.caller.collections.select_related("active_config")
    counted = dict(rows.values_list("pk").annotate(n=Count("documents")))
    return CollectionList(collections=[_record(row, counted.get(row.pk, 0)) for row in rows])


@endpoint(
    "POST",
    "collections",
    Scope.ADMIN,
    Family.COLLECTIONS,
    body=NewCollection,
    answer=CollectionRecord,
    statuses=(201,),
)
def create_collection(call: Call, asked: NewCollection) -> Answer:
    """An empty collection, owned by the key's owner.
    Its slug is made from its name. A key for named collections cannot create others."""
    if refusal := call.caller.may_create_collections():
        return refusal
    collection = None
    while collection is None:
        collection = _created(call.caller, asked.model_dump())
    ensure_generation(collection)
    return _record(collection, 0)


@endpoint(
    "GET",
    "collections/<slug:slug>",
    Scope.SEARCH,
    Family.COLLECTIONS,
    or_scope=Scope.INGEST,
    answer=CollectionRecord,
)
def read_collection(call: Call, asked: Nothing, slug: str) -> Answer:
    """One collection."""
    collection = seen(call.caller, slug)
    if isinstance(collection, Refusal):
        return collection
    return _record(collection, collection.documents.count())


@endpoint(
    "PATCH",
    "collections/<slug:slug>",
    Scope.ADMIN,
    Family.COLLECTIONS,
    body=Changes,
    answer=CollectionRecord,
    refusals=(409,),
)
def change_collection(call: Call, asked: Changes, slug: str) -> Answer:
    """Its name, description, language, suggested queries and whether it is public.
    The language is fixed once there are documents: they are indexed by its words."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    changes = {name: value for name, value in asked.model_dump().items() if value is not None}
    documents = collection.documents.count()
    if documents and changes.get("language", collection.language) != collection.language:
        sentence = "The language is fixed: the documents are indexed by its words."
        return Refusal(409, "language-fixed", sentence)
    for name, value in changes.items():
        setattr(collection, name, value)
    # Only these: the active version may change in the meantime.
    if changes and not Collection.objects.filter(pk=collection.pk).update(**changes):
        return GONE
    return _record(collection, documents)


@endpoint("DELETE", "collections/<slug:slug>", Scope.ADMIN, Family.COLLECTIONS, statuses=(204,))
def delete_collection(call: Call, asked: Nothing, slug: str) -> Answer:
    """Deletes a collection with all that is in it."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    erase_collection(collection)
    return None


@endpoint(
    "GET",
    "collections/<slug:slug>/status",
    Scope.SEARCH,
    Family.DOCUMENTS,
    or_scope=Scope.INGEST,
    answer=Status,
)
def read_status(call: Call, asked: Nothing, slug: str) -> Answer:
    """How many of its documents are how far."""
    collection = seen(call.caller, slug)
    if isinstance(collection, Refusal):
        return collection
    found = counts(Document.objects.filter(collection=collection))
    return Status(
        documents=found["num_documents"],
        parsing=found["num_parsing_documents"],
        indexing=found["num_indexing_documents"],
        indexed=found["num_indexed_documents"],
        failed=found["num_failed_documents"],
    )


def _created(caller: Caller, values: dict[str, Any]) -> Collection | None:
    """None when somebody else took the slug at the same moment."""
    try:
        with transaction.atomic():
            return Collection.objects.create_with_owner(
                slug=free_slug(values["name"]), user=caller.user, **values
            )
    except IntegrityError:
        return None


def _record(collection: Collection, documents: int) -> CollectionRecord:
    active = collection.active_config
    return CollectionRecord(
        slug=collection.slug,
        v1_name=name_of(collection),
        name=collection.name,
        description=collection.description,
        language=collection.language,
        is_public=collection.is_public,
        suggested_queries=collection.suggested_queries,
        created_at=collection.created_at,
        active_version=active.version if active is not None else None,
        documents=documents,
    )
