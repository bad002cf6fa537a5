"""The OpenAPI document of our own API, made once from the registered endpoints."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from . import urls
from .endpoint import ENDPOINTS, Endpoint
from .schemas import ErrorBody

Document = dict[str, Any]
# A model, as it is read or as it is written.
Mode = tuple[type[BaseModel], JsonSchemaMode]
Refs = dict[Mode, Document]

VERSION = "1"
_REF = "#/components/schemas/{model}"
_PART = re.compile(r"<(\w+):(\w+)>")
_KINDS: dict[str, Document] = {
    "slug": {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$", "maxLength": 64},
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
}
REASONS = {
    200: "OK",
    201: "Created",
    204: "Done; there is nothing to say",
    400: "Not served as asked; the message says why",
    401: "No API key, or one that is unknown, revoked or expired",
    403: "The key lacks the scope, or its owner the role",
    404: "Not there, or not for this key",
    409: "The state of things is in the way",
    408: "The body came too slowly",
    413: "The body is too large",
    422: "The request does not fit the schema",
    429: "The key's limit is used up; `retry-after` says for how long",
    500: "A failure of the server",
    503: "The database or a worker does not answer right now",
    504: "No answer in time",
    507: "The server has no space left",
}
SECURITY: Document = {
    "components": {
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key: podium_…"}
        }
    },
    "security": [{"key": []}],
}


@require_safe
def own_document(request: HttpRequest) -> HttpResponse:
    return answer(document())


@functools.cache
def document() -> Document:
    """Of /api/v1."""
    assert urls.urlpatterns  # importing it has registered the endpoints
    models: set[Mode] = {(ErrorBody, "serialization")}
    for each in ENDPOINTS:
        for read in (each.body, each.query):
            if read is not None:
                models.add((read, "validation"))
        if each.answer is not None:
            models.add((each.answer, "serialization"))
    refs, schemas = schemas_of(models)
    paths: Document = {}
    for each in ENDPOINTS:
        address = "/" + _PART.sub(r"{\2}", each.path)
        paths.setdefault(address, {})[each.method.lower()] = _operation(each, refs, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Podium",
            "version": VERSION,
            "description": "Search with every stage's ranks, scores and times; collections, "
            "documents, search configs, judgments and trainings.",
        },
        "servers": [{"url": "/api/v1"}],
        "paths": paths,
        "components": {"schemas": schemas, **SECURITY["components"]},
        "security": SECURITY["security"],
    }


def schemas_of(
    models: Iterable[Mode],
) -> tuple[Refs, Document]:
    """(model, mode) -> a reference to its schema; and the schemas by name."""
    ordered = sorted(models, key=lambda each: (each[0].__name__, each[0].__module__, each[1]))
    refs, found = models_json_schema(ordered, ref_template=_REF)
    return cast(Refs, refs), found.get("$defs", {})


def _operation(
    each: Endpoint,
    refs: Refs,
    schemas: Document,
) -> Document:
    scopes = " or ".join(scope.value for scope in each.scopes)
    operation: Document = {
        "operationId": each.name,
        "tags": [each.tag],
        "summary": each.summary,
        "description": f"{each.description} Scope of the key: {scopes}.".strip(),
        "parameters": [*_parts(each.path), *_parameters(each, refs, schemas)],
        "responses": _responses(each, refs),
    }
    if each.body is not None:
        content = {"application/json": {"schema": refs[each.body, "validation"]}}
        operation["requestBody"] = {"required": True, "content": content}
    if each.raw:
        octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": octets}
    return operation


def _parts(path: str) -> list[Document]:
    return [
        {"name": name, "in": "path", "required": True, "schema": dict(_KINDS[kind])}
        for kind, name in _PART.findall(path)
    ]


def _parameters(
    each: Endpoint,
    refs: Refs,
    schemas: Document,
) -> list[Document]:
    if each.query is None:
        return []
    schema = schemas[refs[each.query, "validation"]["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _plain(form)}
        for name, form in schema["properties"].items()
    ]


def _plain(form: Document) -> Document:
    """A parameter that may be left out is not null when it is there."""
    choices = [each for each in form.get("anyOf", []) if each != {"type": "null"}]
    rest = {name: value for name, value in form.items() if name not in {"anyOf", "default"}}
    if len(choices) == 1:
        return {**rest, **choices[0]}
    return form


def _responses(each: Endpoint, refs: Refs) -> Document:
    responses: Document = {}
    for status in each.statuses:
        if each.answer is None:
            responses[str(status)] = {"description": REASONS[status]}
        else:
            schema = refs[each.answer, "serialization"]
            responses[str(status)] = json_response(REASONS[status], schema)
    error = refs[ErrorBody, "serialization"]
    for status in sorted(_refusals(each)):
        responses[str(status)] = json_response(REASONS[status], error)
    return responses


def _refusals(each: Endpoint) -> set[int]:
    found = {401, 403, 422, 429, 503} | each.refusals
    if "<" in each.path:
        found.add(404)
    if each.body is not None or each.raw:
        found |= {400, 408, 413}
    if each.method != "GET" or each.family == "search":
        found.add(507)
    return found


def json_response(description: str, schema: Document) -> Document:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def answer(content: Document) -> HttpResponse:
    response = JsonResponse(content, json_dumps_params={"ensure_ascii": False})
    response.headers["Cache-Control"] = "no-cache"
    return response


def tags(paths: Document) -> Sequence[str]:
    """In the order in which they first stand in the document."""
    found = [operation["tags"][0] for item in paths.values() for operation in item.values()]
    return list(dict.fromkeys(found))
