"""One document: its text, its passages, its original file."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse


def document(request: HttpRequest, uid: str) -> HttpResponse:
    raise Http404


def document_file(request: HttpRequest, uid: str) -> HttpResponse:
    raise Http404
