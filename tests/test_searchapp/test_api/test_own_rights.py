"""Every endpoint of /api/v1: who may call it where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from searchapp.api.own.endpoint import ENDPOINTS
from searchapp.api.own.openapi import document
from searchapp.engine import broker
from searchapp.models import (
    Collection,
    Document,
    Membership,
    Role,
    Scope,
    SearchConfig,
    TrainingJob,
    TrainingState,
)
from searchapp.search import pipeline, traces
from tests.callers import bearer, make_key
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

READ = {Scope.SEARCH, Scope.INGEST}
PLACES = {
    "own": Role.OWNER,
    "edited": Role.EDITOR,
    "viewed": Role.VIEWER,
    "public": None,
    "foreign": None,
}


@dataclass(frozen=True)
class Case:
    """`role`: what the owner of the key must hold in the collection; None: to see it is enough."""

    scopes: set[Scope]
    role: Role | None = None
    body: dict[str, Any] | bytes | None = None
    query: str = ""
    status: int = 200


# In an order in which each finds what it needs.
CASES = {
    "list_collections": Case(READ),
    "create_collection": Case({Scope.ADMIN}, body={"name": "New"}, status=201),
    "read_collection": Case(READ),
    "read_status": Case(READ),
    "list_documents": Case(READ),
    "read_document": Case(READ),
    "read_text": Case(READ),
    "read_progress": Case(READ),
    "search": Case({Scope.SEARCH}, body={"query": "heron"}),
    "read_search": Case({Scope.SEARCH}),
    "explain_document": Case({Scope.SEARCH}, query="?path=Heron.txt"),
    "list_configs": Case({Scope.ADMIN}, Role.OWNER),
    "read_config": Case({Scope.ADMIN}, Role.OWNER),
    "save_draft": Case({Scope.ADMIN}, Role.OWNER, body={"rerank_depth": 5}),
    "compare_configs": Case(
        {Scope.ADMIN}, Role.OWNER, body={"before": 1, "after": 3, "query": "heron"}
    ),
    "discard_draft": Case({Scope.ADMIN}, Role.OWNER, status=204),
    "activate_config": Case({Scope.ADMIN}, Role.OWNER, body={"reason": "Tried it."}),
    "list_activations": Case({Scope.ADMIN}, Role.OWNER),
    "list_trainings": Case({Scope.ADMIN}, Role.OWNER),
    "read_training": Case({Scope.ADMIN}, Role.OWNER),
    "list_checkpoints": Case({Scope.ADMIN}, Role.OWNER),
    "give_judgment": Case(
        {Scope.JUDGE}, Role.EDITOR, body={"query": "heron", "path": "Heron.txt", "grade": 3}
    ),
    "import_judgments": Case(
        {Scope.JUDGE},
        Role.EDITOR,
        body={"judgments": [{"query": "heron", "document": "Heron.txt", "grade": 1}]},
    ),
    "list_judgments": Case({Scope.JUDGE}, Role.EDITOR),
    "export_judgments": Case({Scope.JUDGE}, Role.EDITOR),
    "change_collection": Case({Scope.ADMIN}, Role.OWNER, body={"description": "Birds."}),
    "add_text": Case(
        {Scope.INGEST}, Role.EDITOR, body={"path": "gull.txt", "text": "A gull."}, status=201
    ),
    "add_file": Case(
        {Scope.INGEST}, Role.EDITOR, body=b"A tern.", query="?path=tern.txt", status=201
    ),
    "delete_document": Case({Scope.INGEST}, Role.EDITOR, status=204),
    "delete_collection": Case({Scope.ADMIN}, Role.OWNER, status=204),
}
WITHOUT_COLLECTION = {"list_collections", "create_collection"}


@pytest.fixture
def olive(transactional_db: None, settings: Any, tmp_path: Any) -> User:
    settings.MEDIA_ROOT = tmp_path / "media"
    broker.connection().flushdb()
    return User.objects.create_user("olive")


@pytest.fixture
def world(olive: User) -> dict[str, dict[str, UUID]]:
    """place -> the ids that stand in addresses there."""
    other = User.objects.create_user("other")
    found = {}
    for place, role in PLACES.items():
        owner = olive if place == "own" else other
        collection = make_collection(place, user=owner, is_public=place == "public")
        if role in {Role.EDITOR, Role.VIEWER}:
            Membership.objects.create(collection=collection, user=olive, role=role)
        document = add_document(collection, "Heron", [f"A heron of {place}."])
        SearchConfig.objects.create(collection=collection, version=2, frozen_at=timezone.now())
        config = pipeline.active_config(collection)
        training = TrainingJob.objects.create(
            collection=collection, config=config, state=TrainingState.DONE
        )
        trace = traces.record(pipeline.start("heron", collection, user=olive), olive)
        found[place] = {"document": document.uid, "search": trace.uid, "training": training.uid}
    return found


def address(path: str, place: str, ids: dict[str, UUID]) -> str:
    kind = "training" if "trainings" in path else "document"
    kind = "search" if path.startswith("searches/") else kind
    path = path.replace("<slug:slug>", place).replace("<uuid:uid>", str(ids[kind]))
    return "/api/v1/" + path.replace("<int:version>", "2")


def expected(name: str, scope: Scope, place: str) -> int:
    case = CASES[name]
    if scope not in case.scopes:
        return 403
    if name in WITHOUT_COLLECTION:
        return case.status
    if place == "foreign":
        return 404
    ranks = [None, *Role]
    if case.role is not None and ranks.index(PLACES[place]) < ranks.index(case.role):
        return 403
    return case.status


def ask(client: Client, method: str, url: str, case: Case, plain: str) -> Any:
    is_raw = isinstance(case.body, bytes)
    kind = "application/octet-stream" if is_raw else "application/json"
    send = getattr(client, method.lower())
    given = {"content_type": kind} if method != "GET" else {}
    if case.body is not None:
        given["data"] = case.body
    return send(url + case.query, **given, **bearer(plain))


def test_every_endpoint_is_in_the_matrix() -> None:
    document()
    assert set(CASES) == {each.name for each in ENDPOINTS}
    assert len(ENDPOINTS) == len(CASES)


def test_every_endpoint_is_in_the_document() -> None:
    listed = {
        (method.upper(), path) for path, item in document()["paths"].items() for method in item
    }
    assert len(listed) == len(ENDPOINTS)


def test_endpoints_times_scopes_times_collections(
    client: Client, olive: User, world: dict[str, dict[str, UUID]]
) -> None:
    keys = {scope: make_key(olive, scope)[1] for scope in Scope}
    endpoints = {each.name: each for each in ENDPOINTS}
    wrong = []
    for name, case in CASES.items():
        for scope in Scope:
            for place in PLACES:
                url = address(endpoints[name].path, place, world[place])
                answer = ask(client, endpoints[name].method, url, case, keys[scope])
                wanted = expected(name, scope, place)
                if answer.status_code != wanted:
                    said = answer.content[:200]
                    wrong.append((name, scope.value, place, wanted, answer.status_code, said))
                elif wanted >= 400:
                    assert set(answer.json()["error"]) == {"code", "message", "fields"}
    assert not wrong, "\n".join(map(str, wrong))
    # What was refused changed nothing.
    assert set(Collection.objects.exclude(name="New").values_list("slug", flat=True)) == (
        set(PLACES) - {"own"}
    )
    assert Document.objects.filter(path="Heron.txt").count() == 3


def test_a_key_of_one_collection_sees_no_other(
    client: Client, olive: User, world: dict[str, dict[str, UUID]]
) -> None:
    own = Collection.objects.filter(slug="own")
    plain = make_key(olive, collections=own)[1]
    listed = client.get("/api/v1/collections", **bearer(plain)).json()["collections"]
    assert [each["slug"] for each in listed] == ["own"]
    endpoints = {each.name: each for each in ENDPOINTS}
    for name, case in CASES.items():
        if name not in WITHOUT_COLLECTION:
            for place in ("edited", "public"):
                url = address(endpoints[name].path, place, world[place])
                answer = ask(client, endpoints[name].method, url, case, plain)
                assert answer.status_code == 404, (name, place)
    refused = ask(client, "POST", "/api/v1/collections", CASES["create_collection"], plain)
    assert refused.status_code == 403


def test_no_key_and_a_session_open_nothing(
    client: Client, olive: User, world: dict[str, dict[str, UUID]]
) -> None:
    client.force_login(olive)
    for each in ENDPOINTS:
        url = address(each.path, "own", world["own"])
        for headers in ({}, {"authorization": "Bearer podium_wrong"}):
            answer = getattr(client, each.method.lower())(url, headers=headers)
            assert answer.status_code == 401, each.name
            assert answer.json()["error"]["code"] in {"missing-key", "unknown-key"}


def test_the_documents_and_their_page_need_no_key(client: Client) -> None:
    for name in ("openapi", "v1_openapi", "dialects_openapi"):
        assert client.get(reverse(name)).json()["openapi"] == "3.1.0"


def test_the_page_of_the_api_is_found_with_a_slash_too(client: Client) -> None:
    assert client.get("/api/docs/").headers["Location"] == reverse("api_docs")
