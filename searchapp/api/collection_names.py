"""Collections by the name that programs call them: any text of up to 1024 bytes, where the
addresses of pages have a slug. Two people may use the same name, each for one of their own."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q

from searchapp.models import Collection, Membership, Scope
from searchapp.models.corpus import CollectionQuerySet

from .auth import Caller
from .refusals import Refusal

MAX_BYTES = 1024


def named(caller: Caller, name: str, scope: Scope) -> Collection | Refusal:
    """The caller's own collection of this name before a public one. 404 when the caller sees none,
    403 when they may not do there what the scope is for."""
    found = of_name(caller, name).first()
    if found is None:
        return Refusal(404, "unknown-collection", f"There is no collection “{name[:200]}”.")
    allowed = caller.collection(found.slug, scope)
    return allowed if isinstance(allowed, Refusal) else found


def of_name(caller: Caller, name: str) -> CollectionQuerySet:
    """Those the caller sees under the name, the one to be used first."""
    own = Membership.objects.filter(collection=OuterRef("pk"), user_id=caller.user.pk)
    return (
        caller.collections.filter(Q(api_name=name) | Q(api_name="", slug=name))
        .select_related("active_config", "active_generation")
        .order_by(Exists(own).desc(), "pk")
    )


def name_of(collection: Collection) -> str:
    return collection.api_name or collection.slug
