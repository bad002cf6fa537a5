"""What the dialects share: a request read into a `Wanted`, one rerank, an answer or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from pydantic import BaseModel, ConfigDict, ValidationError

from searchapp.models import Family, Scope

from ..auth import Caller, keyed, refused
from ..bodies import body_of
from ..failures import failure_of
from ..limits import Latency
from ..models_rerank import Reranked, rerank
from ..refusals import Refusal

View = Callable[..., HttpResponse]


@dataclass(frozen=True)
class Wanted:
    """One rerank as the product knows it. `instruction` "": none of the caller's own."""

    query: str
    documents: Sequence[str]
    model: str = "default"
    top_n: int | None = None
    instruction: str = ""
    latency: Latency | None = None


class Asked(BaseModel):
    """A request's body; fields we do not know are let pass.

    No provider but vLLM has a field for an instruction; every dialect takes one by that name.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    instruction: str | None = None

    def wanted(self) -> Wanted:
        raise NotImplementedError


Request = TypeVar("Request", bound=Asked)
Body = TypeVar("Body", bound=BaseModel)
Details = list[dict[str, Any]]


@dataclass(frozen=True)
class Dialect:
    """How one provider answers what it cannot serve, and what it calls its models.

    `body`: the JSON of a refusal. `invalid`: that of a body that does not fit the schema, else as
    any refusal of status `invalid_status`. `statuses`: the provider's own for some of our refusals,
    by code. `models`: how the provider's own model ids begin; code that names one gets the
    reranker that is configured here.
    """

    body: Callable[[Refusal], Any]
    invalid_status: int = 400
    invalid: Callable[[Details], Any] | None = None
    statuses: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()

    def render(self, refusal: Refusal) -> HttpResponse:
        status = self.statuses.get(refusal.code, refusal.status)
        return json_response(self.body(replace(refusal, status=status)), status)

    def model_of(self, name: str) -> str:
        return "default" if not name or name.startswith(self.models or "\0") else name

    def unfit(self, error: ValidationError) -> HttpResponse:
        details = [
            {"loc": ["body", *each["loc"]], "msg": each["msg"], "type": each["type"]}
            for each in error.errors(include_url=False, include_context=False, include_input=False)
        ][:100]
        if self.invalid is not None:
            answer = json_response(self.invalid(details), self.invalid_status)
            answer.headers["x-should-retry"] = "false"
            return answer
        refusal = Refusal(self.invalid_status, "invalid", "; ".join(map(_sentence, details[:5])))
        return refused(refusal, self.render)


# What each endpoint speaks and reads, for the OpenAPI document.
READS: dict[View, tuple[Dialect, type[BaseModel]]] = {}


def rerank_view(
    dialect: Dialect,
    schema: type[Request],
    answer: Callable[[Request, Reranked], Any],
) -> View:
    """A POST endpoint that reranks. `answer` gives the JSON of a rerank, or a Refusal."""

    def ranked(caller: Caller, asked: Request) -> Any:
        wanted = asked.wanted()
        if not wanted.documents:
            return Refusal(400, "empty", "There are no documents to rank. Send at least one.")
        found = rerank(
            caller,
            model=dialect.model_of(wanted.model),
            query=wanted.query,
            documents=wanted.documents,
            instruction=wanted.instruction,
            top_n=wanted.top_n,
            latency=wanted.latency,
        )
        return found if isinstance(found, Refusal) else answer(asked, found)

    return view_of(dialect, schema, Family.RERANK, ranked)


def view_of(
    dialect: Dialect,
    schema: type[Body],
    family: Family,
    serve: Callable[[Caller, Body], Any],
) -> View:
    """A POST endpoint. `serve` gives the JSON of the answer, or a Refusal."""

    def read(request: HttpRequest) -> Body | HttpResponse:
        body = body_of(request)
        if isinstance(body, Refusal):
            return refused(body, dialect.render)
        try:
            return schema.model_validate_json(body if body.strip() else b"{}")
        except ValidationError as error:
            return dialect.unfit(error)

    @keyed(Scope.SEARCH, family, dialect.render)
    def served(request: HttpRequest, caller: Caller) -> HttpResponse:
        try:
            asked = read(request)
            if isinstance(asked, HttpResponse):
                return asked
            shown = serve(caller, asked)
        except Exception as error:
            shown = failure_of(request.path, error)
        if isinstance(shown, Refusal):
            return refused(shown, dialect.render)
        return json_response(shown)

    view = only("POST", dialect, served)
    READS[view] = (dialect, schema)
    return view


def only(method: str, dialect: Dialect, view: View) -> View:
    """405 in the dialect's shape for every other method."""

    @csrf_exempt  # a key, never a session
    def allowed(request: HttpRequest) -> HttpResponse:
        if request.method == method:
            return view(request)
        refusal = Refusal(405, "method", f"Use {method} for this address.")
        response = refused(refusal, dialect.render)
        response.headers["Allow"] = method
        return response

    return allowed


def nothing_here(dialect: Dialect) -> View:
    """For every other address of the dialect."""

    @csrf_exempt
    def unknown(request: HttpRequest, rest: str = "") -> HttpResponse:
        return refused(
            Refusal(404, "unknown-address", "There is no such endpoint here."), dialect.render
        )

    return unknown


def json_response(body: Any, status: int = 200) -> HttpResponse:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair, which JSON may spell and UTF-8 may not, comes back as "?".
    return HttpResponse(
        text.encode("utf-8", "replace"), status=status, content_type="application/json"
    )


def _sentence(detail: dict[str, Any]) -> str:
    where = ".".join(map(str, detail["loc"][1:]))
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])
