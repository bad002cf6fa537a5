"""The address /mcp: POST, one message a call, answered as JSON. There are no sessions, hence no
stream to GET and nothing to DELETE."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from searchapp.models import Family, Scope

from ..auth import Caller, keyed, refused
from ..bodies import body_of
from ..failures import failure_of
from ..refusals import Refusal

# JSON-RPC's own number for a request that is none.
INVALID_REQUEST = -32600
# Not for the SDK to see, which could only log them.
KEPT_BACK = {"authorization", "cookie"}


def render(refusal: Refusal) -> HttpResponse:
    error = {
        "code": INVALID_REQUEST,
        "message": refusal.sentence,
        "data": {"code": refusal.code, "status": refusal.status},
    }
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": None, "error": error}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(text, status=refusal.status, content_type="application/json")


@csrf_exempt  # a key authenticates the call, never a session
def mcp(request: HttpRequest) -> HttpResponse:
    """405 for all but POST, as the protocol wants of a server without streams and sessions."""
    if request.method != "POST":
        refusal = Refusal(405, "method", "Use POST for this address; there are no sessions here.")
        response = refused(refusal, render)
        response.headers["Allow"] = "POST"
        return response
    return _posted(request)


@keyed(Scope.SEARCH, Family.SEARCH, render, or_scope=Scope.INGEST)
def _posted(request: HttpRequest, caller: Caller) -> HttpResponse:
    try:
        body = body_of(request)
        if isinstance(body, Refusal):
            return refused(body, render)
        return _answered(request, caller, body)
    except Exception as error:
        return refused(failure_of(request.path, error), render)


def _answered(request: HttpRequest, caller: Caller, body: bytes) -> HttpResponse:
    from .protocol import Post, answer

    named = {name.lower(): value for name, value in request.headers.items()}
    headers = {name: value for name, value in named.items() if name not in KEPT_BACK and value}
    host = request.get_host()
    reply = answer(caller, Post(body, headers, host, f"{request.scheme}://{host}"))
    if reply.status >= 400 and "content-type" not in reply.headers:
        # What the SDK finds wrong with headers it tells as bare text.
        sentence = reply.body.decode("utf-8", "replace") or "This is no request of the protocol."
        return refused(Refusal(reply.status, "protocol", sentence), render)
    response = HttpResponse(reply.body, status=reply.status)
    # Of the SDK's own headers only what says what the body is: an empty one is nothing.
    if reply.body:
        response.headers["Content-Type"] = reply.headers.get("content-type", "application/json")
    return response
