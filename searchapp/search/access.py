"""Who searches: the permission as SQL, and the one who acts for the shell. And what they see: one
state of the database, not several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction

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


@contextmanager
def snapshot() -> Iterator[None]:
    """All that is read within is of one moment, so that a document which is replaced meanwhile is
    seen whole, the old or the new. Within a transaction it is that one's business."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
