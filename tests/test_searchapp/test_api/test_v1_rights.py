"""Every endpoint of /v1: who may call it where, and what it makes of nonsense."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from searchapp.api.v1 import urls
from searchapp.api.v1.endpoint import ENDPOINTS
from searchapp.models import Collection, Document, Membership, Role, Scope
from tests.callers import make_key
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

TEXT = {"type": "text", "text": "A gull."}
# Endpoint -> a good request but for the collection, and the scopes of which one is enough.
CALLS: dict[str, tuple[dict[str, Any], set[Scope]]] = {
    "collections/delete-collection": ({}, {Scope.ADMIN}),
    "collections/get-collection-list": ({}, {Scope.SEARCH, Scope.INGEST}),
    "documents/add-document": ({"path": "new", "content": TEXT}, {Scope.INGEST}),
    "documents/update-document": ({"path": "Heron.txt", "metadata": {}}, {Scope.INGEST}),
    "documents/delete-document": ({"path": "Heron.txt"}, {Scope.INGEST}),
    "documents/get-document-info": ({"path": "Heron.txt"}, {Scope.SEARCH, Scope.INGEST}),
    "documents/get-document-info-list": ({}, {Scope.SEARCH, Scope.INGEST}),
    "documents/get-page-info": (
        {"path": "Heron.txt", "page_index": 0},
        {Scope.SEARCH, Scope.INGEST},
    ),
    "status/get-status": ({}, {Scope.SEARCH, Scope.INGEST}),
    "queries/top-documents": ({"query": "heron", "k": 1}, {Scope.SEARCH}),
    "queries/top-pages": ({"query": "heron", "k": 1}, {Scope.SEARCH}),
    "queries/top-snippets": ({"query": "heron", "k": 1}, {Scope.SEARCH}),
    "collections/add-collection": ({}, {Scope.ADMIN}),
    "models/rerank": ({"model": "default", "query": "q", "documents": []}, {Scope.SEARCH}),
    "models/embed": ({"model": "default", "input": [], "input_type": "query"}, {Scope.SEARCH}),
}
WRITING = {
    "documents/add-document",
    "documents/update-document",
    "documents/delete-document",
    "collections/delete-collection",
}
PLACES = ["own", "edited", "viewed", "foreign", "public"]


@pytest.fixture
def olive(transactional_db: None) -> User:
    return User.objects.create_user("olive")


@pytest.fixture
def world(olive: User) -> None:
    other = User.objects.create_user("other")
    for place in PLACES:
        owner = olive if place == "own" else other
        collection = make_collection(place, user=owner, is_public=place == "public")
        starts = [0] if place != "foreign" else []
        document = add_document(collection, "Heron", [f"A heron of {place}."], page_starts=starts)
        Document.objects.filter(pk=document.pk).update(page_count=1)
        for role, where in ((Role.EDITOR, "edited"), (Role.VIEWER, "viewed")):
            if where == place:
                Membership.objects.create(collection=collection, user=olive, role=role)


def expected_status(path: str, scope: Scope, place: str) -> int:
    _, scopes = CALLS[path]
    if scope not in scopes:
        return 403
    if path.startswith("models/") or path == "collections/get-collection-list":
        return 200
    if path == "collections/add-collection":
        # A name of one's own is taken; others' names say nothing.
        return 409 if place in {"own", "edited", "viewed"} else 201
    if place == "foreign":
        return 404
    if path == "collections/delete-collection" and place != "own":
        return 403
    if path in WRITING and place not in {"own", "edited"}:
        return 403
    return 201 if path == "documents/add-document" else 200


def test_every_endpoint_is_in_the_matrix() -> None:
    assert urls.urlpatterns and set(CALLS) == set(ENDPOINTS)


def test_endpoints_times_scopes_times_collections(
    live_server: Any, olive: User, world: None
) -> None:
    keys = {scope: make_key(olive, scope)[1] for scope in Scope}
    wrong = []
    with httpx.Client(base_url=f"{live_server.url}/v1/") as client:
        for path in sorted(CALLS, key=lambda path: path in WRITING):
            for scope in Scope:
                for place in PLACES:
                    body = {**CALLS[path][0], "collection_name": place}
                    answer = client.post(
                        path, json=body, headers={"Authorization": f"Bearer {keys[scope]}"}
                    )
                    wanted = expected_status(path, scope, place)
                    if answer.status_code != wanted:
                        wrong.append((path, scope, place, answer.status_code, wanted, answer.text))
                    if place != "foreign" and "foreign" in answer.text:
                        wrong.append((path, scope, place, "tells of the foreign collection"))
                    if answer.status_code in {200, 201}:
                        restore(olive, path, place)
    assert wrong == []


def restore(olive: User, path: str, place: str) -> None:
    """What a successful call changed, so that the next finds the same world."""
    if path == "documents/add-document":
        Document.objects.filter(path="new").delete()
    elif path == "collections/add-collection":
        Collection.objects.filter(created_by=olive).exclude(slug="own").delete()
    elif path == "collections/delete-collection":
        collection = make_collection(place, user=olive, is_public=False)
        add_document(collection, "Heron", ["A heron."], page_starts=[0])
    elif path == "documents/delete-document":
        add_document(Collection.objects.get(slug=place), "Heron", ["A heron."], page_starts=[0])


def test_a_session_opens_no_endpoint_and_a_key_no_page(
    client: Any, olive: User, world: None
) -> None:
    client.force_login(olive)
    for path in ENDPOINTS:
        assert client.post(f"/v1/{path}", "{}", "application/json").status_code == 401
    client.logout()
    plain = make_key(olive)[1]
    headers = {"authorization": f"Bearer {plain}"}
    assert client.get("/collections/own/", headers=headers).status_code == 404


# --- nonsense ----------------------------------------------------------------------------------

ODD_TEXTS = st.sampled_from(
    ["", " ", "\0", "../../etc/passwd", "a\r\nSet-Cookie: x=y", "%s %(a)s {0}", "'; DROP TABLE x",
     "x" * 5000, "😀" * 600, "\u202e", "own", "foreign", "Heron.txt", "$eq", "list:a", "-1"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ODD_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def test_nonsense_is_refused_in_the_contracts_shape(
    live_server: Any, olive: User, world: None
) -> None:
    headers = {"Authorization": f"Bearer {make_key(olive)[1]}"}
    client = httpx.Client(base_url=f"{live_server.url}/v1/", headers=headers)
    fields = sorted({name for each in ENDPOINTS.values() for name in each.schema.model_fields})

    @hypothesis_settings(
        max_examples=120,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.sampled_from(sorted(CALLS)), st.dictionaries(st.sampled_from(fields), VALUES))
    def check(path: str, odd: dict[str, Any]) -> None:
        if path == "collections/delete-collection":
            odd.pop("collection_name", None)
        body = {"collection_name": "own", **CALLS[path][0], **odd}
        if path == "collections/delete-collection":
            body["collection_name"] = "nowhere"
        answer = client.post(path, content=json.dumps(body))
        assert answer.status_code < 500 or answer.status_code == 503, (path, body, answer.text)
        assert "heron of foreign" not in answer.text
        if answer.status_code >= 400:
            detail = answer.json()["detail"]
            assert detail and isinstance(detail, str | list)
        assert "set-cookie" not in answer.headers

    check()
    client.close()


def test_raw_bytes_are_refused_too(live_server: Any, olive: User) -> None:
    rng = random.Random(3)
    plain = make_key(olive)[1]
    headers = {"Authorization": f"Bearer {plain}", "Content-Type": "text/plain; charset=utf-16"}
    bodies = [b"\xff\xfe{\x00}\x00", b"{" * 5000, b'{"a":' * 5000, b"1e999", b'"\\ud800"']
    bodies += [rng.randbytes(rng.randint(1, 300)) for _ in range(10)]
    with httpx.Client(base_url=f"{live_server.url}/v1/", headers=headers) as client:
        for body in bodies:
            answer = client.post("documents/add-document", content=body)
            assert answer.status_code == 422, (body, answer.text)
            assert isinstance(answer.json()["detail"], list)
