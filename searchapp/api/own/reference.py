"""The OpenAPI document as people read it: operations with their parameters and an example each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .openapi import Document, tags

TITLES = {
    "collections": "Collections",
    "documents": "Documents",
    "searches": "Search",
    "configs": "Search configs",
    "judgments": "Judgments",
    "trainings": "Trainings and checkpoints",
}
_LISTED = "…"
# Stretches of a text, each with whether it is code.
Words = Sequence[tuple[bool, str]]


@dataclass(frozen=True)
class Parameter:
    name: str
    place: str
    kind: str
    required: bool
    example: str


@dataclass(frozen=True)
class Field:
    """One field of a body. `about`: its limits and default."""

    name: str
    kind: str
    required: bool
    about: str


@dataclass(frozen=True)
class Operation:
    """`body`: an example as JSON, None where nothing or a file is sent. `answer` likewise."""

    name: str
    method: str
    path: str
    summary: str
    description: Words
    parameters: Sequence[Parameter]
    about_body: Words
    fields: Sequence[Field]
    body: str | None
    raw: bool
    answer: str | None
    about_answer: Words
    responses: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    name: str
    title: str
    operations: Sequence[Operation]


def groups(document: Document) -> list[Group]:
    """The document's operations by their tags."""
    schemas = document["components"]["schemas"]
    base = document["servers"][0]["url"]
    found: dict[str, list[Operation]] = {tag: [] for tag in tags(document["paths"])}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            read = _operation(f"{base}{path}", method.upper(), operation, schemas)
            found[operation["tags"][0]].append(read)
    order = [*TITLES, *found]
    return [
        Group(tag, TITLES.get(tag, tag.title()), operations)
        for tag, operations in sorted(found.items(), key=lambda each: order.index(each[0]))
    ]


def _operation(path: str, method: str, operation: Document, schemas: Document) -> Operation:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    asked = _resolved(schema, schemas) if schema is not None else {}
    success = next(iter(operation["responses"].values()))
    given = success.get("content", {}).get("application/json", {}).get("schema")
    return Operation(
        name=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        description=_words(operation["description"]),
        parameters=[_parameter(each) for each in operation.get("parameters", [])],
        about_body=_words(asked.get("description", "")),
        fields=_fields(asked, schemas),
        body=_example(schema, schemas, required_only=True) if schema is not None else None,
        raw="application/octet-stream" in content,
        answer=_example(given, schemas) if given is not None else None,
        about_answer=_words(_resolved(given, schemas).get("description", "")) if given else [],
        responses=[
            (status, response["description"]) for status, response in operation["responses"].items()
        ],
    )


def _parameter(form: Document) -> Parameter:
    schema = form["schema"]
    samples = {"slug": "handbook", "path": "intro.md", "version": "1", "limit": "10"}
    is_shown = form["required"] or "default" in schema
    example = samples.get(form["name"], str(schema.get("default", ""))) if is_shown else ""
    return Parameter(form["name"], form["in"], _kind(schema, {}), form["required"], example)


def _fields(schema: Document, schemas: Document) -> list[Field]:
    required = schema.get("required", [])
    return [
        Field(name, _kind(form, schemas), name in required, _about(form))
        for name, form in schema.get("properties", {}).items()
    ]


def _kind(form: Document, schemas: Document) -> str:
    """A schema in a few words."""
    if "$ref" in form:
        return _kind(_resolved(form, schemas), schemas)
    if "enum" in form:
        return " | ".join(f"“{each}”" for each in form["enum"])
    if "const" in form:
        return f"“{form['const']}”"
    if "anyOf" in form:
        return " or ".join(_kind(each, schemas) for each in form["anyOf"])
    if form.get("type") == "array":
        return f"list of {_kind(form.get('items', {}), schemas)}"
    if form.get("properties"):
        return f"{{{', '.join(form['properties'])}}}"
    return str(form.get("format", form.get("type", "anything")))


def _about(form: Document) -> str:
    """Its limits and its default."""
    merged = dict(form)
    for choice in form.get("anyOf", []):
        merged |= {name: value for name, value in choice.items() if name not in form}
    limits = [("minimum", "maximum", ""), ("minLength", "maxLength", " characters")]
    limits.append(("minItems", "maxItems", " of them"))
    parts = []
    for least, most, what in limits:
        low, high = merged.get(least), merged.get(most)
        if high is not None:
            parts.append(
                f"{low:,} to {high:,}{what}" if low is not None else f"up to {high:,}{what}"
            )
        elif low is not None:
            parts.append(f"from {low:,}{what}")
    if form.get("default") not in (None, [], {}, ""):
        parts.append(f"default {json.dumps(form['default'])}")
    return ", ".join(parts)


def _example(form: Document, schemas: Document, *, required_only: bool = False) -> str:
    return json.dumps(_sample(form, schemas, required_only), indent=2, ensure_ascii=False)


def _sample(form: Document, schemas: Document, required_only: bool) -> Any:
    form = _resolved(form, schemas)
    if "anyOf" in form:
        return _sample(form["anyOf"][0], schemas, required_only)
    if "enum" in form:
        return form["enum"][0]
    if form.get("type") == "object":
        properties = form.get("properties", {})
        # What is left out has a default; where nothing must be there, show all there is.
        shown = form.get("required", []) if required_only and form.get("required") else properties
        return {name: _sample(properties[name], schemas, required_only) for name in shown}
    if form.get("type") == "array":
        return [_sample(form.get("items", {}), schemas, required_only)]
    return _plain(form)


def _plain(form: Document) -> Any:
    samples: Mapping[str, Any] = {
        "uuid": "9f1c2f0e-6a52-4b7e-9d0a-3c1f5b8e7a11",
        "date-time": "2026-11-21T12:00:00Z",
        "integer": max(1, form.get("minimum", 1)),
        "number": 0.5,
        "boolean": False,
        "string": _LISTED,
        "null": None,
    }
    kind = str(form.get("format", form.get("type", "string")))
    return form.get("const", samples.get(kind, _LISTED))


def _resolved(form: Document, schemas: Document) -> Document:
    while "$ref" in form:
        form = schemas.get(form["$ref"].rpartition("/")[2], {})
    return form


def _words(text: str) -> Words:
    """What stands between backticks is code."""
    parts = " ".join(text.split()).split("`")
    return [(bool(at % 2), part) for at, part in enumerate(parts) if part]
