"""/api/v1/: every registered endpoint, and an answer in our shape for all else."""

from __future__ import annotations

from django.urls import path, re_path

from . import collections, configs, documents, judgments, searches, trainings
from .endpoint import ENDPOINTS, View, dispatch, not_found

# Imported for the endpoints they register.
__all__ = [
    "collections",
    "configs",
    "documents",
    "judgments",
    "searches",
    "trainings",
    "urlpatterns",
]


def _by_address() -> dict[str, dict[str, View]]:
    """Fixed addresses before those with a part that varies."""
    found: dict[str, dict[str, View]] = {}
    for each in sorted(ENDPOINTS, key=lambda each: each.path.replace("<", "~")):
        found.setdefault(each.path, {})[each.method] = each.view
    return found


urlpatterns = [
    *(path(address, dispatch(views)) for address, views in _by_address().items()),
    re_path(r"^(?P<rest>(?s:.*))$", not_found),
]
