"""Who calls: a key in the request, read into a `Caller` or into the reason why not.

A session never authenticates a call, because then any page a person visits could make calls in
their name; and a key never opens a page, because pages look at the session alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Concatenate, ParamSpec

from django.contrib.auth.models import AbstractBaseUser
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from searchapp import metrics
from searchapp.models import ApiKey, Collection, Family, Role, Scope
from searchapp.models.api_keys import KEY_FORMAT, ROLE_OF_SCOPE, digest
from searchapp.models.corpus import CollectionQuerySet

from . import usage
from .failures import failure_of
from .limits import ONE_REQUEST, charge
from .refusals import Refusal
from .usage import Meter

P = ParamSpec("P")
Render = Callable[[Refusal], HttpResponse]
Endpoint = Callable[Concatenate[HttpRequest, "Caller", P], HttpResponse]

NO_KEY = Refusal(
    401, "missing-key", "Send your API key in the header “Authorization: Bearer <key>”."
)
# One sentence for every key that is not ours: it says nothing about those that are.
UNKNOWN = Refusal(401, "unknown-key", "This API key is not known here.")
REVOKED = Refusal(401, "revoked-key", "This API key was revoked. Create a new one.")
EXPIRED = Refusal(401, "expired-key", "This API key has expired. Create a new one.")
INACTIVE = Refusal(401, "inactive-owner", "The account of this API key's owner is not active.")


@dataclass(frozen=True)
class Caller:
    """One call's key, and `user`: its owner, narrowed to the key's collections.

    Handing `user` to search, ingest or any QuerySet asks for what key and owner both allow.
    `meter` gathers what the call costs; it is written once, when the call is over.
    """

    user: AbstractBaseUser
    key: ApiKey
    scopes: frozenset[Scope]
    meter: Meter = field(default_factory=Meter)

    @property
    def collections(self) -> CollectionQuerySet:
        """Those the call may know of at all."""
        return Collection.objects.visible_to(self.user)

    def usable(self, scope: Scope) -> CollectionQuerySet:
        """Those in which the owner holds the role that the scope asks for."""
        role: Role | None = ROLE_OF_SCOPE[scope]
        return self.collections if role is None else Collection.objects.with_role(self.user, role)

    def collection(self, slug: str, scope: Scope) -> Collection | Refusal:
        """The collection for an act of this scope: 404 when it is not visible to the caller, 403
        when it is, but the key lacks the scope or its owner the role."""
        lacking = self.lacks(scope)
        if lacking is not None:
            return lacking
        rows = self.collections.select_related("active_config", "active_generation")
        found = rows.filter(slug=slug).first()
        if found is None:
            return Refusal(404, "unknown-collection", f"There is no collection “{slug}”.")
        role = ROLE_OF_SCOPE[scope]
        if role is not None and not self.usable(scope).filter(pk=found.pk).exists():
            who = f"the {role.label.lower()}'s role in “{slug}”"
            return Refusal(403, "role-needed", f"The owner of this API key does not hold {who}.")
        return found

    def lacks(self, scope: Scope) -> Refusal | None:
        """403 when the key was not made for this."""
        if scope in self.scopes:
            return None
        return Refusal(403, "scope-needed", f"This API key lacks the scope “{scope.value}”.")

    def may_create_collections(self) -> Refusal | None:
        """None, or why not: a key for named collections could not see the one it makes."""
        if lacking := self.lacks(Scope.ADMIN):
            return lacking
        if not self.key.every_collection:
            sentence = "This API key is for named collections only and cannot create others."
            return Refusal(403, "key-of-collections", sentence)
        return None


def caller_of(request: HttpRequest, *, also_x_api_key: bool = False) -> Caller | Refusal:
    """Reads `Authorization: Bearer <key>` (or `X-API-Key: <key>` where the dialect has it)."""
    plain = _shown(request, also_x_api_key)
    if not plain:
        return NO_KEY
    # Before the database is asked: most of what is wrong is not a key at all.
    if KEY_FORMAT.fullmatch(plain) is None:
        return UNKNOWN
    key = ApiKey.objects.of_digest(digest(plain))
    if key is None:
        return UNKNOWN
    if key.revoked_at is not None:
        return REVOKED
    if key.is_expired:
        return EXPIRED
    if not key.owner.is_active:
        return INACTIVE
    return Caller(key.holder(), key, frozenset(map(Scope, key.scopes)))


def _shown(request: HttpRequest, also_x_api_key: bool) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return request.headers.get("X-API-Key", "").strip() if also_x_api_key else ""


def keyed(
    scope: Scope,
    family: Family,
    render: Render,
    *,
    or_scope: Scope | None = None,
    also_x_api_key: bool = False,
) -> Callable[[Endpoint[P]], Callable[Concatenate[HttpRequest, P], HttpResponse]]:
    """An endpoint for callers whose key has `scope` (or `or_scope`); it gets the Caller after the
    request.

    Takes one request from the key's limit. Refusals leave through `render` with their headers,
    as the endpoint's own do through `refused`. Every call with a known key is counted under
    `family`; as refused where it ends with 401, 403 or 429.
    """

    def around(view: Endpoint[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        def endpoint(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            try:
                caller = caller_of(request, also_x_api_key=also_x_api_key)
            except DatabaseError as error:
                caller = failure_of(request.path, error)
            if isinstance(caller, Refusal):
                return _closed(refused(caller, render), family)
            usage.begin(caller.meter)
            try:
                lacking = caller.lacks(scope)
                if or_scope is not None and caller.lacks(or_scope) is None:
                    lacking = None
                closed = lacking or charge(caller, ONE_REQUEST)
                if isinstance(closed, Refusal):
                    response = refused(closed, render)
                else:
                    response = view(request, caller, *args, **kwargs)
            except BaseException:
                usage.record(caller.key, family, caller.meter, refused=False)
                raise
            is_refused = response.status_code in {401, 403, 429}
            _when_sent(
                response,
                lambda: usage.record(caller.key, family, caller.meter, refused=is_refused),
            )
            return _closed(response, family)

        # The names and texts of the view; its signature is one argument longer than ours.
        update_wrapper(endpoint, view)
        return csrf_exempt(endpoint)

    return around


def _when_sent(response: HttpResponse, act: Callable[[], None]) -> None:
    """Nobody waits for it; it still has the call's connection to the database."""
    close = response.close

    def closing() -> None:
        try:
            act()
        finally:
            close()

    response.close = closing  # type: ignore[method-assign]


def refused(refusal: Refusal, render: Render) -> HttpResponse:
    """The dialect's answer, with the refusal's headers."""
    metrics.API_REFUSALS.labels(refusal.code).inc()
    response = render(refusal)
    for name, value in refusal.headers().items():
        response.headers.setdefault(name, value)
    return response


def _closed(response: HttpResponse, family: Family) -> HttpResponse:
    """Counted, and not to be kept by anything between us and the caller."""
    metrics.API_CALLS.labels(family.value, str(response.status_code)).inc()
    response.headers.setdefault("Cache-Control", "no-store")
    return response
