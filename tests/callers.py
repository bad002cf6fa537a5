"""API keys for tests, and the requests that show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.test import RequestFactory

from searchapp.api.auth import Caller, caller_of
from searchapp.models import ApiKey, Collection, Scope


def make_key(
    owner: User,
    *scopes: str,
    name: str = "",
    collections: Iterable[Collection] | None = None,
    **fields: Any,
) -> tuple[ApiKey, str]:
    """A key (of all scopes unless some are named) and its plain text."""
    return ApiKey.objects.create_with_plain(
        owner=owner,
        name=name or f"key {ApiKey.objects.count() + 1}",
        scopes=scopes or Scope.values,
        collections=collections,
        **fields,
    )


def bearer(plain: str) -> dict[str, str]:
    """Keyword arguments of Django's test client."""
    return {"headers": {"authorization": f"Bearer {plain}"}}


def caller(plain: str) -> Caller:
    found = caller_of(RequestFactory().post("/", **bearer(plain)))
    assert isinstance(found, Caller), found
    return found
