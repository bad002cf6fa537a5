"""Collections by the name that programs call them: any text of up to 1024 bytes, where the
addresses of pages have a slug. Two people may use the same name, each for one of their own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.db.models import Q, QuerySet

from searchapp.models import Collection, Generation, Membership, Role, Scope
from searchapp.models.api_keys import ROLE_OF_SCOPE
from searchapp.models.corpus import ACTS_BY_KEY, CollectionQuerySet, free_slug
from searchapp.models.rows import from_row, width
from searchapp.search.vectors import ensure_generation

from .auth import Caller
from .refusals import Refusal

MAX_BYTES = 1024
# The first of the two keys of an advisory lock.
_NAMING = 7_110


def named(caller: Caller, name: str, scope: Scope | None = None) -> Collection | Refusal:
    """The caller's own collection of this name before a public one. 404 when the caller sees none,
    403 when they may not do there what the scope is for; None: it is only looked at."""
    # Without a name of its own for programs a collection's is "", which nobody may mean by it.
    if not name or "\0" in name:
        return _unknown(name)
    role = None if scope is None else ROLE_OF_SCOPE[scope]
    if scope is not None and role is not None and caller.lacks(scope) is None:
        # Nearly always there is one and the role is held, which one query then tells.
        found = _preferred(caller, _usable(caller, role, name))
        if found is not None:
            return found
    rows = caller.collections.select_related("active_config", "active_generation")
    found = _preferred(caller, list(_of_name(rows, name)))
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


def _preferred(caller: Caller, rows: list[Collection]) -> Collection | None:
    if len(rows) > 1:
        own = set(_own(caller).values_list("collection_id", flat=True))
        rows.sort(key=lambda row: (row.pk not in own, row.pk))
    return rows[0] if rows else None


# What stands in a composed query for the caller's user, their key, and the name.
_USER, _KEY, _NAME = -(2**61), -(2**61) - 1, "\0"


def _usable(caller: Caller, role: Role, name: str) -> list[Collection]:
    """With their active generations, those of the name where the caller holds the role. Every
    document that is added asks this, so its SQL is composed once for each kind of caller:
    composing it takes several times as long as running it."""
    key = getattr(caller.user, ACTS_BY_KEY, None)
    is_superuser = bool(getattr(caller.user, "is_superuser", False))
    sql, marked = _composed(role, is_superuser=is_superuser, by_key=key is not None)
    meant = {_USER: caller.user.pk, _KEY: key, _NAME: name}
    with connection.cursor() as cursor:
        cursor.execute(sql, [meant.get(each, each) for each in marked])
        rows = cursor.fetchall()
    return [_collection(row) for row in rows]


@functools.cache
def _composed(role: Role, *, is_superuser: bool, by_key: bool) -> tuple[str, Sequence[Any]]:
    """The SQL for such a caller, made by the one door to permissions, and its parameters."""
    user = get_user_model()(pk=_USER, is_superuser=is_superuser)
    if by_key:
        vars(user)[ACTS_BY_KEY] = _KEY
    rows = Collection.objects.with_role(user, role).select_related("active_generation")
    sql, parameters = _of_name(rows, _NAME).query.sql_with_params()
    return sql, parameters


def _collection(row: Sequence[Any]) -> Collection:
    collection = from_row(Collection, connection.alias, row)
    if collection.active_generation_id is not None:
        generation = from_row(Generation, connection.alias, row[width(Collection) :])
        collection.active_generation = generation
    return collection


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
