"""The collection that a command is about."""

from __future__ import annotations

from django.core.management.base import CommandError

from searchapp.models import Collection


def collection_named(slug: str) -> Collection:
    """With its active settings. Raises CommandError."""
    found = Collection.objects.filter(slug=slug).select_related("active_config").first()
    if found is None:
        raise CommandError(f"There is no collection {slug!r}.")
    return found
