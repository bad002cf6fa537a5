"""Light or dark without scripts, and the page for a request that cannot be read."""

from __future__ import annotations

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from searchapp.api.refusals import Refusal, in_every_contract

YEAR_SECONDS = 365 * 24 * 3600


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remembers light, dark or (anything else) the system's choice, and returns where one was."""
    target = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = "/"
    response = HttpResponseRedirect(target)
    choice = request.POST.get("theme", "")
    if choice in {"light", "dark"}:
        response.set_cookie("theme", choice, max_age=YEAR_SECONDS, samesite="Lax")
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 400 with the frame of every page, which Django's own handler leaves bare. Programs, by
    their key, get JSON."""
    sentence = ""
    if isinstance(exception, DisallowedHost):
        host = request.META.get("HTTP_HOST", "")[:200]
        sentence = (
            f"This server does not know that it is reached as “{host}”. Whoever runs it can add "
            "that name to ALLOWED_HOSTS."
        )
    if not request.headers.get("Authorization"):
        return render(request, "400.html", {"sentence": sentence}, status=400)
    refusal = Refusal(400, "bad-request", sentence or "This request cannot be read.")
    return in_every_contract(refusal)
