"""/v1/: every registered endpoint, and an answer in the contract's shape for all else."""

from __future__ import annotations

from django.urls import path, re_path

from . import models
from .endpoint import ENDPOINTS, not_found

__all__ = ["models", "urlpatterns"]  # imported for the endpoints they register

urlpatterns = [
    *(path(each.path, each.view, name=f"v1/{each.path}") for each in ENDPOINTS.values()),
    re_path(r"^(?P<rest>.*)$", not_found),
]
