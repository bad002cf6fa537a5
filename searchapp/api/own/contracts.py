"""The OpenAPI documents of what others wrote: `/v1`, and the dialects of rerank. They list requests
and statuses; the answers are described by whose contract it is."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from ..dialects import urls as dialect_urls
from ..dialects.endpoint import READS
from ..v1 import urls as v1_urls
from ..v1.endpoint import ENDPOINTS
from .openapi import REASONS, SECURITY, VERSION, Document, answer, json_response, schemas_of

_ANYTHING: Document = {}
_OBJECT: Document = {"type": "object"}
_SENTENCE: Document = {
    "type": "object",
    "properties": {"detail": {"type": "string"}},
    "required": ["detail"],
}
_WRONG: Document = {
    "type": "object",
    "properties": {
        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        "msg": {"type": "string"},
        "type": {"type": "string"},
    },
    "required": ["loc", "msg", "type"],
}
_LISTED: Document = {
    "type": "object",
    "properties": {"detail": {"type": "array", "items": _WRONG}},
    "required": ["detail"],
}
_REFUSALS = (400, 401, 403, 404, 408, 413, 422, 429, 503, 504, 507)


@require_safe
def v1_document(request: HttpRequest) -> HttpResponse:
    return answer(document_of_v1())


@require_safe
def dialects_document(request: HttpRequest) -> HttpResponse:
    return answer(document_of_dialects())


@functools.cache
def document_of_v1() -> Document:
    """Of /v1, the ZeroEntropy contract."""
    assert v1_urls.urlpatterns  # importing it has registered the endpoints
    refs, schemas = schemas_of((each.schema, "validation") for each in ENDPOINTS.values())
    paths: Document = {}
    for path, each in ENDPOINTS.items():
        statuses = (200, 201) if "/add-" in path else (200,)
        responses = _responses(statuses, _OBJECT) | _responses((*_REFUSALS, 409), _SENTENCE)
        paths[f"/{path}"] = _posted(
            path,
            path.partition("/")[0],
            each.summary,
            f"Scope of the key: {each.scope.value}.",
            refs[each.schema, "validation"],
            responses | _responses((422,), _LISTED),
        )
    about = "The ZeroEntropy contract: its official clients work here."
    return _document("Podium /v1", about, "/v1", paths, schemas)


@functools.cache
def document_of_dialects() -> Document:
    """Of the rerank endpoints of other providers, and of OpenAI's embeddings."""
    served = {
        f"/{pattern.pattern}": READS[pattern.callback]
        for pattern in dialect_urls.urlpatterns
        if pattern.callback in READS
    }
    refs, schemas = schemas_of({(schema, "validation") for _, schema in served.values()})
    paths: Document = {}
    for path, (dialect, schema) in served.items():
        statuses = {*_REFUSALS, dialect.invalid_status, *dialect.statuses.values()}
        what = "Texts as unit vectors." if path.endswith("embeddings") else "Ranks texts."
        paths[path] = _posted(
            path.strip("/"),
            path.split("/")[1],
            what,
            "Scope of the key: search.",
            refs[schema, "validation"],
            _responses((200, *statuses), _ANYTHING),
        )
    about = "Clients of Cohere, Jina, Voyage, TEI, vLLM, Infinity and OpenAI work here."
    return _document("Podium, other providers' clients", about, "/", paths, schemas)


def _posted(
    path: str, tag: str, summary: str, description: str, schema: Document, responses: Document
) -> Document:
    operation = {
        "operationId": path.replace("/", "_").replace("-", "_"),
        "tags": [tag],
        "summary": summary,
        "description": description,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": responses,
    }
    return {"post": operation}


def _responses(statuses: Iterable[int], schema: Document) -> Document:
    return {
        str(status): json_response(REASONS.get(status, "Not served"), schema)
        for status in sorted(statuses)
    }


def _document(title: str, about: str, server: str, paths: Document, schemas: Document) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": VERSION, "description": about},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": schemas, **SECURITY["components"]},
        "security": SECURITY["security"],
    }
