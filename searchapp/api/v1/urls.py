"""/v1/: every registered endpoint, and an answer in the contract's shape for all else."""

from __future__ import annotations

from django.urls import path, re_path

from .. import links
from . import collections, documents, files, models, pages, queries, status
from .endpoint import ENDPOINTS, not_found

# Imported for the endpoints they register.
__all__ = ["collections", "documents", "models", "pages", "queries", "status", "urlpatterns"]

urlpatterns = [
    *(path(each.path, each.view, name=f"v1/{each.path}") for each in ENDPOINTS.values()),
    path("documents/get-document", files.get_document, name=links.DOCUMENT),
    path("documents/get-page-image", files.get_page_image, name=links.PAGE_IMAGE),
    re_path(r"^(?P<rest>(?s:.*))$", not_found),
]
