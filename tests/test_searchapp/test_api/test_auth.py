"""Who a key speaks for: every scope in every kind of collection, and the keys that say nothing."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client, RequestFactory
from django.utils import timezone

from searchapp.api import auth
from searchapp.api.auth import Caller, caller_of, keyed
from searchapp.api.refusals import Refusal
from searchapp.models import ApiKey, Collection, Document, Family, Membership, Role, Scope, Trace
from searchapp.search import pipeline
from tests.callers import bearer, caller, make_key
from tests.fakes import FakeEmbedder
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db

SCOPES = list(Scope)
PLACES = ["own", "edited", "viewed", "foreign", "public"]
# Status of an act of a scope in each place, by the owner's rights alone: 200 stands for allowed.
BY_RIGHT = {
    "own": dict.fromkeys(SCOPES, 200),
    "edited": {Scope.SEARCH: 200, Scope.INGEST: 200, Scope.JUDGE: 200, Scope.ADMIN: 403},
    "viewed": {Scope.SEARCH: 200, Scope.INGEST: 403, Scope.JUDGE: 403, Scope.ADMIN: 403},
    "foreign": dict.fromkeys(SCOPES, 404),
    "public": {Scope.SEARCH: 200, Scope.INGEST: 403, Scope.JUDGE: 403, Scope.ADMIN: 403},
}


@pytest.fixture
def olive() -> User:
    return User.objects.create_user("olive")


@pytest.fixture
def places(olive: User) -> dict[str, Collection]:
    other = User.objects.create_user("other")
    made = {
        "own": make_collection("own", user=olive, is_public=False),
        "edited": make_collection("edited", user=other, is_public=False),
        "viewed": make_collection("viewed", user=other, is_public=False),
        "foreign": make_collection("foreign", user=other, is_public=False),
        "public": make_collection("public", user=other, is_public=True),
    }
    for place, role in (("edited", Role.EDITOR), ("viewed", Role.VIEWER)):
        Membership.objects.create(collection=made[place], user=olive, role=role)
    for place, collection in made.items():
        add_document(collection, f"Secret of {place}", ["oak acorns"])
    return made


def outcome(found: Collection | Refusal) -> int:
    return found.status if isinstance(found, Refusal) else 200


@pytest.mark.parametrize("limited", [False, True], ids=["every collection", "named collections"])
@pytest.mark.parametrize("superuser", [False, True], ids=["person", "superuser"])
def test_scopes_times_collections(
    olive: User, places: dict[str, Collection], limited: bool, superuser: bool
) -> None:
    """Every scope of the key × every scope asked for × every kind of collection."""
    olive.is_superuser = superuser
    olive.save()
    named = [places["own"], places["viewed"], places["foreign"]]
    cases = 0
    for held in SCOPES:
        _, plain = make_key(olive, held, collections=named if limited else None)
        asker = caller(plain)
        for asked, (place, collection) in product(SCOPES, places.items()):
            expected = 200 if superuser else BY_RIGHT[place][asked]
            if limited and collection not in named:
                expected = 404
            if asked != held:
                expected = 403
            found = asker.collection(place, asked)
            assert outcome(found) == expected, (held, asked, place, found)
            inside = asker.usable(asked).filter(pk=collection.pk).exists()
            assert inside == (expected == 200) or asked != held, (held, asked, place)
            cases += 1
    assert cases == len(SCOPES) ** 2 * len(PLACES)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("limited", [False, True])
def test_search_documents_and_traces_keep_to_the_keys_collections(
    olive: User, places: dict[str, Collection], place: str, limited: bool
) -> None:
    """The user of a Caller is narrowed for whatever asks the QuerySets, candidate SQL included."""
    _, plain = make_key(olive, collections=[places["own"], places["foreign"]] if limited else None)
    asker = caller(plain)
    allowed = place == "own" or (not limited and place != "foreign")
    collection = places[place]
    Trace.objects.create(
        collection=collection, config=collection.active_config, query="oak", user=olive
    )
    found = pipeline.search("oak", collection, user=asker.user, embedder=FakeEmbedder())
    assert bool(found.hits) == allowed
    for rows in (Document, Trace):
        visible = rows.objects.visible_to(asker.user).filter(collection=collection)
        assert visible.exists() == allowed, rows
    # The same person without the key loses nothing.
    expected = place != "foreign"
    assert Document.objects.visible_to(olive).filter(collection=collection).exists() == expected


def test_a_key_whose_last_collection_is_deleted_sees_none(
    olive: User, places: dict[str, Collection]
) -> None:
    _, plain = make_key(olive, collections=[places["own"]])
    places["own"].delete()
    assert not caller(plain).collections.exists()


def test_a_right_withdrawn_from_the_owner_is_withdrawn_from_the_key(
    olive: User, places: dict[str, Collection]
) -> None:
    _, plain = make_key(olive, collections=[places["edited"]])
    Membership.objects.filter(user=olive, collection=places["edited"]).delete()
    assert outcome(caller(plain).collection("edited", Scope.SEARCH)) == 404


def test_only_a_key_for_every_collection_creates_them(
    olive: User, places: dict[str, Collection]
) -> None:
    wide, named, reader = (
        caller(make_key(olive)[1]),
        caller(make_key(olive, collections=[places["own"]])[1]),
        caller(make_key(olive, "search")[1]),
    )
    assert wide.may_create_collections() is None
    for asker in (named, reader):
        refusal = asker.may_create_collections()
        assert refusal is not None
        assert refusal.status == 403


def ask(headers: dict[str, str], **options: bool) -> Caller | Refusal:
    return caller_of(RequestFactory().post("/", headers=headers), **options)


def test_keys_that_say_nothing_are_refused_each_with_its_sentence(olive: User) -> None:
    key, plain = make_key(olive)
    stranger = f"podium_{'x' * 43}"
    wrong = [
        ({}, auth.NO_KEY),
        ({"authorization": ""}, auth.NO_KEY),
        ({"authorization": "Bearer"}, auth.NO_KEY),
        ({"authorization": f"Basic {plain}"}, auth.NO_KEY),
        ({"x-api-key": plain}, auth.NO_KEY),
        ({"authorization": f"Bearer {stranger}"}, auth.UNKNOWN),
        ({"authorization": f"Bearer {plain}x"}, auth.UNKNOWN),
        ({"authorization": f"Bearer {plain[:-1]}"}, auth.UNKNOWN),
        ({"authorization": f"Bearer {plain.upper()}"}, auth.UNKNOWN),
        ({"authorization": f"Bearer {key.digest}"}, auth.UNKNOWN),
        ({"authorization": "Bearer é\x00'; DROP TABLE"}, auth.UNKNOWN),
        ({"authorization": "Bearer " + "a" * 100_000}, auth.UNKNOWN),
    ]
    for headers, refusal in wrong:
        assert ask(headers) == refusal, headers
        assert refusal.status == 401
        assert "www-authenticate" in refusal.headers()
    for right in (f"Bearer {plain}", f"bearer  {plain} "):
        assert isinstance(ask({"authorization": right}), Caller), right
    assert isinstance(ask({"x-api-key": plain}, also_x_api_key=True), Caller)


def test_a_malformed_key_asks_nothing_of_the_database(
    olive: User, django_assert_num_queries: object
) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        assert ask({"authorization": "Bearer nonsense"}) == auth.UNKNOWN


def test_expiry_counts_to_the_second_and_revoking_takes_effect_at_once(olive: User) -> None:
    now = timezone.now()
    _, later = make_key(olive, expires_at=now + timedelta(hours=1))
    _, past = make_key(olive, expires_at=now - timedelta(seconds=1))
    assert isinstance(ask({"authorization": f"Bearer {later}"}), Caller)
    assert ask({"authorization": f"Bearer {past}"}) == auth.EXPIRED
    assert ApiKey.objects.working().count() == 1
    assert ApiKey.objects.revoke() == 2
    for plain in (later, past):
        assert ask({"authorization": f"Bearer {plain}"}) == auth.REVOKED
    assert ApiKey.objects.revoke() == 0


def test_an_owner_who_is_not_active_speaks_through_no_key(olive: User) -> None:
    _, plain = make_key(olive)
    User.objects.update(is_active=False)
    assert ask({"authorization": f"Bearer {plain}"}) == auth.INACTIVE


def test_the_key_itself_is_stored_nowhere(olive: User) -> None:
    key, plain = make_key(olive)
    row = ApiKey.objects.filter(pk=key.pk).values().get()
    assert plain not in str(row)
    assert plain.startswith(row["prefix"])
    assert len(plain) - len(row["prefix"]) >= 37  # 220 bits stay unknown
    assert make_key(olive)[1] != plain


def render(refusal: Refusal) -> HttpResponse:
    return JsonResponse({"detail": refusal.sentence}, status=refusal.status)


@keyed(Scope.SEARCH, Family.SEARCH, render)
def echo(request: HttpRequest, caller: Caller, word: str) -> HttpResponse:
    caller.meter.pairs += 3
    return JsonResponse({"who": caller.user.get_username(), "word": word})


def test_a_session_never_authenticates_a_call(olive: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(olive)
    request = RequestFactory().post("/", headers={"cookie": str(client.cookies)})
    request.user = olive
    request.session = client.session
    response = echo(request, "hello")
    assert response.status_code == 401
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-should-retry"] == "false"


def test_a_key_opens_no_page(olive: User, places: dict[str, Collection]) -> None:
    _, plain = make_key(olive)
    client = Client()
    for path, status in (
        ("/collections/own/", 404),
        ("/collections/new/", 302),
        ("/admin/", 302),
        ("/accounts/api-keys/", 302),
    ):
        assert client.get(path, **bearer(plain)).status_code == status, path


def test_an_endpoint_gets_its_caller_and_lacking_scopes_are_refused(olive: User) -> None:
    _, reader = make_key(olive, "search")
    _, writer = make_key(olive, "ingest")
    request = RequestFactory().post("/", **bearer(reader))
    assert b'"who": "olive"' in echo(request, word="hello").content
    refused = echo(RequestFactory().post("/", **bearer(writer)), "hello")
    assert refused.status_code == 403
    assert "lacks the scope" in refused.content.decode()
