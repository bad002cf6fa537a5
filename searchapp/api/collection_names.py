"""Collections by the name that programs call them: any text of up to 1024 bytes, where the
addresses of pages have a slug. Two people may use the same name, each for one of their own."""

from __future__ import annotations

from django.db import IntegrityError, connection, transaction
from django.db.models import Q, QuerySet

from searchapp.models import Collection, Membership, Scope
from searchapp.models.api_keys import ROLE_OF_SCOPE
from searchapp.models.corpus import CollectionQuerySet, free_slug
from searchapp.search.vectors import ensure_generation

from .auth import Caller
from .refusals import Refusal

MAX_BYTES = 1024
# The first of the two keys of an advisory lock.
_NAMING = 7_110


def named(caller: Caller, name: str, scope: Scope | None = None) -> Collection | Refusal:
    """The caller's own collection of this name before a public one. 404 when the caller sees none,
    403 when they may not do there what the scope is for; None: it is only looked at."""
    if "\0" in name:
        return _unknown(name)
    role = None if scope is None else ROLE_OF_SCOPE[scope]
    if scope is not None and role is not None and caller.lacks(scope) is None:
        # Nearly always there is one and the role is held, which one query then tells.
        found = _first(caller, caller.usable(scope).select_related("active_generation"), name)
        if found is not None:
            return found
    rows = caller.collections.select_related("active_config", "active_generation")
    found = _first(caller, rows, name)
    if found is None:
        return _unknown(name)
    if scope is None:
        return found
    if refusal := caller.lacks(scope):
        return refusal
    if role is not None:
        who = f"the {role.label.lower()}'s role in “{name[:200]}”"
        return Refusal(403, "role-needed", f"The owner of this API key does not hold {who}.")
    return found


def _unknown(name: str) -> Refusal:
    return Refusal(404, "unknown-collection", f"There is no collection “{name[:200]}”.")


def _first(caller: Caller, among: CollectionQuerySet, name: str) -> Collection | None:
    rows = list(_of_name(among, name))
    if len(rows) > 1:
        own = set(_own(caller).values_list("collection_id", flat=True))
        rows.sort(key=lambda row: (row.pk not in own, row.pk))
    return rows[0] if rows else None


def of_name(caller: Caller, name: str) -> CollectionQuerySet:
    """Those the caller sees under the name."""
    return _of_name(caller.collections, name)


def _of_name(among: CollectionQuerySet, name: str) -> CollectionQuerySet:
    by_name = Q(api_name=name) | Q(api_name="", slug=name)
    return among.filter(by_name).order_by("pk")


def _own(caller: Caller) -> QuerySet[Membership]:
    return Membership.objects.filter(user_id=caller.user.pk)


def create(caller: Caller, name: str) -> Collection | Refusal:
    """An empty collection of the caller's. 403 for a key that may create none, 409 when one of
    theirs has the name."""
    if refusal := caller.may_create_collections():
        return refusal
    own = _own(caller).values("collection_id")
    collection = None
    while collection is None:
        # Two calls at once must not both find the name free; other owners' names do not count.
        with transaction.atomic(), connection.cursor() as cursor:
            key = f"{caller.user.pk}:{name}"
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_NAMING, key])
            if of_name(caller, name).filter(pk__in=own).exists():
                return Refusal(409, "exists", f"There is a collection “{name[:200]}” already.")
            collection = _created(caller, name)
    ensure_generation(collection)
    return collection


def _created(caller: Caller, name: str) -> Collection | None:
    """None when somebody else took the slug at the same moment."""
    slug = free_slug(name)
    try:
        with transaction.atomic():
            return Collection.objects.create_with_owner(
                slug=slug,
                name=" ".join(name.split())[:200] or slug,
                api_name="" if slug == name else name,
                user=caller.user,
            )
    except IntegrityError:
        return None


def name_of(collection: Collection) -> str:
    return collection.api_name or collection.slug
