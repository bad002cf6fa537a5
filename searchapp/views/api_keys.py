"""A person's own API keys: make one, see it once, revoke it, see what was asked with it."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_safe

from searchapp.api import usage
from searchapp.forms.api_keys import ApiKeyForm
from searchapp.models import ApiKey

from .access import whole


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@never_cache
@sensitive_post_parameters()
@sensitive_variables("plain")
def api_keys(request: HttpRequest) -> HttpResponse:
    """The list and the form. A new key is shown by the answer to its own POST and never again:
    a redirect would have to keep it somewhere in between."""
    if "revoke" in request.POST:
        return _revoke(request)
    form = ApiKeyForm(request.user, request.POST or None)
    made: ApiKey | None = None
    plain = ""
    if form.is_bound and form.is_valid():
        try:
            with transaction.atomic():
                made, plain = form.made()
            form = ApiKeyForm(request.user)
        except IntegrityError:
            form.add_error("name", "You have a key of this name already.")
    keys = ApiKey.objects.owned_by(request.user).prefetch_related("collections")
    context = {
        "form": form,
        "made": made,
        "plain": plain,
        "standing": [key for key in keys if key.is_standing],
        "ended": [key for key in keys if not key.is_standing],
        "tab": "keys",
    }
    return render(request, "api_keys/keys.html", context, status=422 if form.is_bound else 200)


@require_safe
@login_required
@never_cache
def api_usage(request: HttpRequest) -> HttpResponse:
    """What one's keys asked for in the last day, week or month."""
    days = whole(request.GET.get("days", ""))
    report = usage.report(request.user, days if days in usage.PERIODS else 7)
    context = {
        "report": report,
        "most": max(bar.calls for bar in report.bars),
        "periods": usage.PERIODS,
        "tab": "usage",
    }
    return render(request, "api_keys/usage.html", context)


def _revoke(request: HttpRequest) -> HttpResponse:
    own = ApiKey.objects.owned_by(request.user)
    key = get_object_or_404(own, pk=whole(request.POST["revoke"]))
    if own.filter(pk=key.pk).revoke():
        messages.success(request, f"{key.name} is revoked: calls with it are refused from now on.")
    return redirect("api_keys")
