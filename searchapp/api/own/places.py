"""The collection that an address names, as far as the caller may go there."""

from __future__ import annotations

from searchapp.models import Collection, Scope

from ..auth import Caller
from ..refusals import Refusal


def seen(caller: Caller, slug: str) -> Collection | Refusal:
    """To be looked at; the endpoint has asked for its scopes. 404 where the caller sees none."""
    rows = caller.collections.select_related("active_config", "active_generation")
    found = rows.filter(slug=slug).first()
    return found or Refusal(404, "unknown-collection", f"There is no collection “{slug[:200]}”.")


def held(caller: Caller, slug: str, scope: Scope) -> Collection | Refusal:
    """For an act of this scope: also 403 where the owner lacks the role."""
    return caller.collection(slug, scope)
