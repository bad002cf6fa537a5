"""The page of our own API, made from its OpenAPI document. It needs no account."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from searchapp.api.own import openapi, reference


@require_safe
def api_docs(request: HttpRequest) -> HttpResponse:
    """Every operation with its parameters and examples; with scripts, also a form to try it."""
    return render(request, "api_docs/docs.html", {"groups": reference.groups(openapi.document())})
