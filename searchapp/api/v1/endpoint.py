"""One endpoint: who may call it, what it reads, and how every way to fail is told in the contract's
shape, `{"detail": …}`. The endpoints of this package also stand in ENDPOINTS, with their schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from pydantic import BaseModel, ValidationError

from searchapp.models import Family, Scope
from searchapp.search.filters import BadFilter
from searchapp.search.pipeline import BadQuery

from ..auth import Caller, keyed, refused
from ..bodies import body_of
from ..failures import failure_of
from ..links import Links
from ..refusals import Refusal

# How pydantic calls a type with a check of ours, where it says which of several did not fit.
_CHECKED = re.compile(r"function-after\[\w+\(\), (\w+)\]")


@dataclass(frozen=True)
class Call:
    """Who calls, and the addresses that the answer may hold."""

    caller: Caller
    links: Links


Asked = TypeVar("Asked", bound=BaseModel)
# What a view gives back: the body of a 200, a whole response, or why not.
Answer = Mapping[str, Any] | HttpResponse | Refusal
View = Callable[[HttpRequest], HttpResponse]


@dataclass(frozen=True)
class Endpoint:
    """`path` below /v1/. `errors`: the statuses besides 200 (or `created`) that it may give."""

    path: str
    view: View
    schema: type[BaseModel]
    scope: Scope
    summary: str


ENDPOINTS: dict[str, Endpoint] = {}


def endpoint(
    path: str,
    schema: type[Asked],
    scope: Scope,
    family: Family,
    *,
    or_scope: Scope | None = None,
    body_bytes: int | None = None,
) -> Callable[[Callable[[Call, Asked], Answer]], Callable[[Call, Asked], Answer]]:
    """Registers `view(call, asked)` at `path`. An empty body counts as `{}`."""

    def around(view: Callable[[Call, Asked], Answer]) -> Callable[[Call, Asked], Answer]:
        @keyed(scope, family, render, or_scope=or_scope)
        def served(request: HttpRequest, caller: Caller) -> HttpResponse:
            try:
                return _answered(request, caller, view, schema, family, body_bytes)
            except (BadFilter, BadQuery) as error:
                return refused(Refusal(400, "bad-request", str(error)), render)
            except Exception as error:
                return refused(failure_of(path, error), render)

        doc = (view.__doc__ or "").strip().splitlines()
        summary = doc[0] if doc else ""
        only = _post_only(served)
        ENDPOINTS[path] = Endpoint(path, only, schema, scope, summary)
        return view

    return around


def render(refusal: Refusal) -> HttpResponse:
    return JsonResponse({"detail": refusal.sentence}, status=refusal.status)


@csrf_exempt
def not_found(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Whatever else is asked for below /v1/."""
    return JsonResponse({"detail": "Not Found"}, status=404)


def _answered(
    request: HttpRequest,
    caller: Caller,
    view: Callable[[Call, Asked], Answer],
    schema: type[Asked],
    family: Family,
    body_bytes: int | None,
) -> HttpResponse:
    body = body_of(request, body_bytes)
    if isinstance(body, Refusal):
        return refused(body, render)
    if family not in {Family.RERANK, Family.EMBED}:  # which count their texts
        caller.meter.bytes += len(body)
    try:
        asked = schema.model_validate_json(body if body.strip() else b"{}")
    except ValidationError as error:
        return _unprocessable(error)
    answer = view(Call(caller, Links.of(request)), asked)
    if isinstance(answer, Refusal):
        return refused(answer, render)
    if isinstance(answer, HttpResponse):
        return answer
    return json_response(answer)


def json_response(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(
        text.encode("utf-8", "replace"),
        status=status,
        content_type="application/json",
        headers=dict(headers or {}),
    )


def _unprocessable(error: ValidationError) -> HttpResponse:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    detail = [
        {"loc": ["body", *map(_place, each["loc"])], "msg": each["msg"], "type": each["type"]}
        for each in found[:100]
    ]
    return json_response({"detail": detail}, 422, {"x-should-retry": "false"})


def _place(part: int | str) -> int | str:
    """`list[str]`, whatever checks of ours the texts go through."""
    return _CHECKED.sub(r"\1", part) if isinstance(part, str) else part


def _post_only(view: View) -> View:
    @csrf_exempt  # a key authenticates the call, never a session
    def posted(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            response = JsonResponse({"detail": "Method Not Allowed"}, status=405)
            response.headers["Allow"] = "POST"
            return response
        return view(request)

    return posted
