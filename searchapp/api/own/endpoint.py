"""One endpoint: its method and address, who may call it, what it reads and what it may answer.

Every refusal is `{"error": {"code": …, "message": …, "fields": […]}}`. All endpoints stand in
ENDPOINTS; the addresses, the OpenAPI document and the page of it are made from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from psycopg.errors import ForeignKeyViolation
from pydantic import BaseModel, ValidationError

from searchapp.models import Family, Scope
from searchapp.search.filters import BadFilter
from searchapp.search.pipeline import BadQuery

from ..auth import Caller, keyed, refused
from ..bodies import body_of
from ..failures import failure_of
from ..links import Links
from ..refusals import Refusal
from .schemas import ErrorBody, Failure, Field, Nothing

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Call:
    """Who calls, the addresses that the answer may hold, and the body where it is no JSON."""

    caller: Caller
    links: Links
    raw: bytes = b""


@dataclass(frozen=True)
class Answered:
    """A body with another status than the endpoint's first."""

    body: BaseModel
    status: int


# What a view gives back: a body, None where there is nothing to say, or why not.
Answer = BaseModel | Answered | Refusal | None
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True)
class Endpoint:
    """`path` below /api/v1/, as Django writes it. `query` and `body` are None where nothing is
    read; `raw`: the body is the bytes of a file. `statuses`: of its answers, the usual one first.
    `refusals`: the statuses besides those of every endpoint."""

    method: Method
    path: str
    view: View
    scopes: tuple[Scope, ...]
    family: Family
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    raw: bool
    answer: type[BaseModel] | None
    statuses: tuple[int, ...]
    refusals: frozenset[int]
    name: str
    tag: str
    summary: str
    description: str


ENDPOINTS: list[Endpoint] = []
GONE = Refusal(404, "gone", "What this call was about was deleted while it ran.")


def endpoint(
    method: Method,
    path: str,
    scope: Scope,
    family: Family,
    *,
    answer: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    or_scope: Scope | None = None,
    raw: bool = False,
    body_bytes: int | None = None,
    statuses: tuple[int, ...] = (200,),
    refusals: tuple[int, ...] = (),
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Registers `view(call, asked, **parts of the path)`; `asked` is of `body`, else of `query`.

    The docstring's first line is the summary, the rest the description.
    """

    def around(view: Callable[..., Answer]) -> Callable[..., Answer]:
        @keyed(scope, family, render, or_scope=or_scope)
        def served(request: HttpRequest, caller: Caller, /, **parts: Any) -> HttpResponse:
            try:
                content = b""
                if body is not None or raw:
                    read = body_of(request, body_bytes)
                    if isinstance(read, Refusal):
                        return refused(read, render)
                    content = read
                    caller.meter.bytes += len(content)
                asked = _read(request, content, query, body)
                given = view(Call(caller, Links.of(request), content), asked, **parts)
            except ValidationError as error:
                return _unprocessable(error, "body" if body is not None else "query")
            except (BadFilter, BadQuery) as error:
                given = Refusal(400, "bad-request", str(error))
            except (ObjectDoesNotExist, IntegrityError) as error:
                given = GONE if _is_gone(error) else failure_of(request.path, error)
            except Exception as error:
                given = failure_of(request.path, error)
            return _response(given, statuses[0])

        summary, _, description = (view.__doc__ or "").strip().partition("\n")
        ENDPOINTS.append(
            Endpoint(
                method=method,
                path=path,
                view=served,
                scopes=(scope,) if or_scope is None else (scope, or_scope),
                family=family,
                query=query,
                body=body,
                raw=raw,
                answer=answer,
                statuses=statuses,
                refusals=frozenset(refusals),
                name=view.__name__,
                tag=view.__module__.rpartition(".")[2],
                summary=summary,
                description=" ".join(description.split()),
            )
        )
        return view

    return around


def _is_gone(error: Exception) -> bool:
    """Whether a row went away between two statements, with its collection or by itself."""
    is_foreign = isinstance(error.__cause__, ForeignKeyViolation)
    return isinstance(error, ObjectDoesNotExist) or is_foreign


def render(refusal: Refusal) -> HttpResponse:
    failure = Failure(code=refusal.code, message=refusal.sentence, fields=[])
    return _json(ErrorBody(error=failure), refusal.status)


def dispatch(views: Mapping[str, View]) -> View:
    """One address: the view of the method, 405 in our shape for others."""

    @csrf_exempt  # a key authenticates the call, never a session
    def served(request: HttpRequest, **parts: Any) -> HttpResponseBase:
        method = request.method or ""
        view = views.get("GET" if method == "HEAD" else method)
        if view is not None:
            return view(request, **parts)
        allowed = ", ".join(sorted(views))
        sentence = f"This address takes {allowed}."
        response = refused(Refusal(405, "method", sentence), render)
        response.headers["Allow"] = allowed
        return response

    return served


@csrf_exempt
def not_found(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Whatever else is asked for below /api/v1/."""
    return refused(Refusal(404, "unknown-address", "There is no such endpoint here."), render)


def _read(
    request: HttpRequest,
    content: bytes,
    query: type[BaseModel] | None,
    body: type[BaseModel] | None,
) -> BaseModel:
    """Raises ValidationError. An empty body counts as `{}`."""
    if body is not None:
        return body.model_validate_json(content if content.strip() else b"{}")
    return (query or Nothing).model_validate(request.GET.dict())


def _response(given: Answer, status: int) -> HttpResponse:
    if isinstance(given, Refusal):
        return refused(given, render)
    if isinstance(given, Answered):
        return _json(given.body, given.status)
    return HttpResponse(status=204) if given is None else _json(given, status)


def _json(body: BaseModel, status: int) -> HttpResponse:
    text = body.model_dump_json()
    return HttpResponse(text.encode(), status=status, content_type="application/json")


def _unprocessable(error: ValidationError, where: str) -> HttpResponse:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:100]
    fields = [
        Field(name=".".join(map(str, [where, *each["loc"]])), message=each["msg"]) for each in found
    ]
    message = "; ".join(f"{each.name}: {each.message}" for each in fields[:3])
    response = _json(ErrorBody(error=Failure(code="invalid", message=message, fields=fields)), 422)
    response.headers["x-should-retry"] = "false"
    return response
