"""One stored search."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse


def trace(request: HttpRequest, uid: str) -> HttpResponse:
    raise Http404
