"""Who searches: the permission as SQL, and the one who acts for the shell."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model

from searchapp.models import Collection
from searchapp.models.corpus import AnyUser


def visible_sql(collection: Collection, user: AnyUser) -> tuple[str, tuple[Any, ...]]:
    """A subselect of the collection's id if the user may see it, and its parameters."""
    visible = Collection.objects.visible_to(user).filter(pk=collection.pk).order_by()
    sql, params = visible.values("pk").query.sql_with_params()
    return sql, params


def operator() -> AnyUser:
    """Who commands act for: whoever holds the shell sees every collection. Never stored."""
    return get_user_model()(username="operator", is_active=True, is_superuser=True)
