"""What concerns every page: its headers, and the one failure that any of them can meet."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

Handler = Callable[[HttpRequest], HttpResponse]


def content_security_policy(get_response: Handler) -> Handler:
    """Adds the policy of settings.CONTENT_SECURITY_POLICY unless the view set its own."""

    def handle(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", settings.CONTENT_SECURITY_POLICY)
        return response

    return handle


def full_disk(get_response: Handler) -> Handler:
    """Status 507 with a page that says so when the server ran out of space, instead of a 500."""

    def handle(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    def process_exception(request: HttpRequest, error: Exception) -> HttpResponse | None:
        if is_out_of_space(error):
            return render(request, "507.html", status=507)
        return None

    handle.process_exception = process_exception  # type: ignore[attr-defined]
    return handle


def is_out_of_space(error: BaseException) -> bool:
    """Whether the error, or what it came from, says that the server has no space left."""
    return any(map(_says_full, _chain(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_full(error: BaseException) -> bool:
    """Of a file, of PostgreSQL (SQLSTATE 53100) or of Redis, which then refuses to write."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    return getattr(error, "sqlstate", None) == "53100" or str(error).startswith("MISCONF")
