"""What /api/v1 answers, and that docs/api.md can be typed as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from searchapp.engine import broker, remote
from searchapp.engine.sockets import RerankOutcome
from searchapp.models import Collection, Judgment, Trace
from searchapp.search.erasing import erase_collection
from tests.callers import bearer, make_key
from tests.fakes import FakeEmbedder, FakeReranker
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
PAGE = Path(__file__).resolve().parents[3] / "docs" / "api.md"


@pytest.fixture
def plain(transactional_db: None, settings: Any, tmp_path: Path) -> str:
    settings.MEDIA_ROOT = tmp_path / "media"
    broker.connection().flushdb()
    return make_key(User.objects.create_user("olive"))[1]


@pytest.fixture
def birds(plain: str) -> Collection:
    collection = make_collection("birds", user=User.objects.get(username="olive"))
    add_document(collection, "Heron", ["A heron eats fish."], metadata={"place": "pond"})
    add_document(collection, "Tern", ["A tern eats fish and fish."])
    add_document(collection, "Owl", ["An owl eats mice."])
    return collection


@pytest.fixture
def reranker(monkeypatch: pytest.MonkeyPatch) -> FakeReranker:
    fake = FakeReranker()
    monkeypatch.setattr(remote, "reranker", lambda: fake)
    monkeypatch.setattr(remote, "embedder", FakeEmbedder)
    return fake


class Api:
    """Calls with a key; the JSON of the answer, whose status must be as expected."""

    def __init__(self, plain: str) -> None:
        self.client, self.plain = Client(), plain

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        given = {} if body is None else {"data": body, "content_type": "application/json"}
        send = getattr(self.client, method.lower())
        answer = send(f"/api/v1/{path}", **given, **bearer(self.plain))
        assert answer.status_code == status, answer.content
        return answer.json() if answer.content else None


def test_a_search_tells_what_every_stage_did(
    plain: str, birds: Collection, reranker: FakeReranker
) -> None:
    api = Api(plain)
    found = api("POST", "collections/birds/search", {"query": "fish"})
    assert found["rerank"]["status"] == "ok" and found["rerank"]["model"] == "fake-reverser"
    assert found["stages"]["words"]["status"] == "ok" and found["stages"]["words"]["count"] == 2
    assert {"lexical", "dense", "fusion", "rerank", "total"} <= set(found["stages"]["timings_ms"])
    first, *_, last = found["results"]
    assert [each["rank"] for each in found["results"]] == [1, 2, 3]
    # The fake turns the order round.
    assert first["first_stage_rank"] == 3 and first["movement"] == 2
    assert last["words"]["rank"] == 1 and last["rerank"]["relevance"] < first["rerank"]["relevance"]
    assert first["words"] is None and first["meaning"]["rank"] == 3
    assert (
        first["document"]["path"] == "Owl.txt" and first["passage"]["text"] == "An owl eats mice."
    )

    again = api("GET", f"searches/{found['uid']}?limit=1&offset=1")
    assert again["results"] == found["results"][1:2] and again["candidates"] == 3
    why = api("GET", f"searches/{found['uid']}/explanation?path=Owl.txt")
    assert why["kind"] == "present" and why["rerank"]["status"] == "ok"
    api("GET", f"searches/{found['uid']}/explanation?path=nothing", status=404)
    api("GET", f"searches/{uuid.uuid4()}", status=404)


def test_filters_thresholds_and_instructions_act(
    plain: str, birds: Collection, reranker: FakeReranker
) -> None:
    api = Api(plain)
    asked = {"query": "fish", "filters": {"where": {"place": "pond"}}, "instruction": "Waders."}
    found = api("POST", "collections/birds/search", asked)
    assert [each["document"]["path"] for each in found["results"]] == ["Heron.txt"]
    assert reranker.submitted[-1].instruction == found["instruction"] == "Waders."
    by_type = {"query": "fish", "filters": {"media_type": ["application/pdf"]}}
    assert api("POST", "collections/birds/search", by_type)["results"] == []

    api("PUT", "collections/birds/configs/draft", {"threshold": 0.6})
    api("POST", "collections/birds/configs/2/activate", {"reason": "Only good ones."})
    found = api("POST", "collections/birds/search", {"query": "fish"})
    assert len(found["results"]) == 1 and found["left_out"] == 2
    everything = api("POST", "collections/birds/search", {"query": "fish", "left_out": True})
    assert everything["results"][2]["left_out"] == "below the threshold 0.6"
    bad = {"query": "fish", "filters": {"where": {"place": {"$like": "p"}}}}
    assert api("POST", "collections/birds/search", bad, 400)["error"]["code"] == "bad-request"
    assert api("POST", "collections/birds/search", {"query": " "}, 400)["error"]["fields"] == []


def test_a_search_that_does_not_wait_is_finished_when_it_is_read(
    plain: str, birds: Collection, reranker: FakeReranker
) -> None:
    api = Api(plain)
    asked = {"query": "fish", "wait": False}
    found = api("POST", "collections/birds/search", asked)
    assert found["rerank"]["status"] == "pending"
    assert [each["movement"] for each in found["results"]] == [0, 0, 0]
    assert api("GET", f"searches/{found['uid']}")["rerank"]["status"] == "ok"
    off = api("POST", "collections/birds/search", {"query": "fish", "rerank": False})
    assert off["rerank"]["status"] == "off" and off["results"][0]["rerank"] is None


def test_without_workers_the_first_stage_answers_and_says_so(plain: str, birds: Collection) -> None:
    found = Api(plain)("POST", "collections/birds/search", {"query": "fish"})
    assert found["rerank"]["status"] == "unavailable" and found["rerank"]["code"] == "no-worker"
    assert found["rerank"]["reason"] and found["stages"]["meaning"]["status"] == "skipped"
    assert found["results"][0]["document"]["path"] == "Tern.txt"


def test_a_collection_deleted_meanwhile_is_not_there(
    plain: str, birds: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Erasing(FakeReranker):
        def collect(self, ticket: str, deadline: float) -> RerankOutcome:
            erase_collection(birds)
            return super().collect(ticket, deadline)

    fake = Erasing()
    monkeypatch.setattr(remote, "reranker", lambda: fake)
    found = Api(plain)("POST", "collections/birds/search", {"query": "fish"}, 404)
    assert found["error"]["code"] == "gone"


def test_a_search_of_somebody_else_is_not_there(
    plain: str, birds: Collection, reranker: FakeReranker
) -> None:
    found = Api(plain)("POST", "collections/birds/search", {"query": "fish"})
    other = Api(make_key(User.objects.create_user("other"))[1])
    other("GET", "collections/birds")  # it is public
    other("GET", f"searches/{found['uid']}", status=404)
    other("GET", f"searches/{found['uid']}/explanation?path=Owl.txt", status=404)


def test_versions_are_drafted_compared_activated_and_go_back(
    plain: str, birds: Collection, reranker: FakeReranker
) -> None:
    api, place = Api(plain), "collections/birds/configs"
    draft = api("PUT", f"{place}/draft", {"rerank_depth": 0})
    assert draft["is_draft"] and draft["version"] == 2 and draft["values"]["lexical_depth"] == 200
    overtaken = {"rrf_k": 5, "seen": "0" * 16}
    assert api("PUT", f"{place}/draft", overtaken, 409)["error"]["code"] == "overtaken"
    wrong = api("PUT", f"{place}/draft", {"rerank_depth": 201, "depth": 1}, 422)["error"]["fields"]
    assert {each["name"] for each in wrong} == {"body.rerank_depth", "body.depth"}
    both_off = {"lexical_depth": 0, "dense_depth": 0}
    assert api("PUT", f"{place}/draft", both_off, 400)["error"]["code"] == "bad-lexical_depth"

    compared = api("POST", f"{place}/compare", {"before": 1, "after": 2, "query": "fish"})
    assert [each["field"] for each in compared["changes"]] == ["rerank_depth"]
    assert compared["before"]["rerank"]["status"] == "ok"
    assert compared["after"]["rerank"]["status"] == "off"
    assert (compared["shared"], compared["moved"]) == (3, 2)
    assert not Trace.objects.exists() and api("GET", f"{place}/2")["is_draft"]

    act = api("POST", f"{place}/2/activate", {"reason": "Faster.", "seen_active": 1})
    assert (act["version"], act["previous"], act["activated_by"]) == (2, 1, "olive")
    stale = {"reason": "Back.", "seen_active": 1}
    assert api("POST", f"{place}/1/activate", stale, 409)["error"]["message"]
    api("POST", f"{place}/1/activate", {"reason": "Back."})
    history = api("GET", "collections/birds/activations")["activations"]
    assert [each["version"] for each in history] == [1, 2, 1]
    listed = api("GET", place)["configs"]
    assert [(each["version"], each["is_active"]) for each in listed] == [(2, False), (1, True)]
    api("POST", f"{place}/9/activate", {"reason": "?"}, 404)
    api("DELETE", f"{place}/draft", status=404)


def test_collections_are_changed_and_keep_their_language(plain: str, birds: Collection) -> None:
    api = Api(plain)
    made = api("POST", "collections", {"name": "Birds", "suggested_queries": ["owls"]}, 201)
    assert made["slug"] == "birds-2" and made["active_version"] == 1
    changed = api("PATCH", "collections/birds-2", {"language": "de", "is_public": True})
    assert (changed["language"], changed["is_public"], changed["name"]) == ("de", True, "Birds")
    refused = api("PATCH", "collections/birds", {"language": "de", "name": "New"}, 409)
    assert refused["error"]["code"] == "language-fixed"
    assert api("GET", "collections/birds")["name"] == "Birds"
    counted = {each["slug"]: each["documents"] for each in api("GET", "collections")["collections"]}
    assert counted == {"birds": 3, "birds-2": 0}
    api("DELETE", "collections/birds-2", status=204)
    api("GET", "collections/birds-2", status=404)


def test_documents_are_added_listed_read_and_deleted(plain: str, birds: Collection) -> None:
    api, place = Api(plain), "collections/birds/documents"
    new = {"path": "gull.md", "pages": ["A gull.", "Gulls eat all."], "metadata": {"title": "G"}}
    made = api("POST", place, new, 201)
    assert (made["title"], made["pages"], made["status"]) == ("G", 2, "not_indexed")
    assert api("POST", place, new, 409)["error"]["code"] == "exists"
    replaced = api("POST", place, {**new, "overwrite": True})
    api("GET", f"{place}/{made['uid']}", status=404)
    text = api("GET", f"{place}/{replaced['uid']}/text")
    assert "Gulls eat all." in text["text"] and len(text["page_starts"]) == 2
    progress = api("GET", f"{place}/{replaced['uid']}/progress")
    assert progress["passages"] > 0 and progress["passages_indexed"] == 0
    api("POST", place, {"path": "x"}, 400)
    api("POST", place, {"path": "x", "text": "x", "metadata": {"a b": "c"}}, 400)

    first = api("GET", f"{place}?limit=3")
    assert first["next_after"] == "Tern.txt"
    rest = api("GET", f"{place}?after={first['next_after']}")
    assert [each["path"] for each in rest["documents"]] == ["gull.md"] and not rest["next_after"]
    assert api("GET", f"{place}?limit=0", status=422)["error"]["fields"][0]["name"] == "query.limit"
    api("DELETE", f"{place}/{replaced['uid']}", status=204)
    assert api("GET", "collections/birds/status")["documents"] == 3


def test_judgments_are_given_taken_back_exported_and_imported(
    plain: str, birds: Collection
) -> None:
    api, place = Api(plain), "collections/birds/judgments"
    for path, grade in (("Owl.txt", 3), ("Tern.txt", 0), ("Owl.txt", 2)):
        api("POST", place, {"query": "night birds", "path": path, "grade": grade})
    api("POST", place, {"query": "night birds", "path": "Tern.txt", "grade": None})
    (kept,) = api("GET", f"{place}?query=Night%20%20birds")["judgments"]
    assert (kept["path"], kept["grade"], kept["judged_by"]) == ("Owl.txt", 2, "olive")
    api("POST", place, {"query": "night birds", "path": "Bat.txt", "grade": 1}, 404)
    api("POST", place, {"query": "night birds", "path": "Owl.txt", "grade": 4}, 422)

    lines = api("GET", f"{place}/export")["judgments"]
    assert lines == [
        {"query": "night birds", "document": "Owl.txt", "grade": 2, "judged_by": "olive"}
    ]
    del lines[0]["judged_by"]
    lines.append({"query": "odd\tquery", "document": "no\nsuch", "grade": 1})
    stored = api("POST", f"{place}/import", {"judgments": lines})
    assert stored == {"judgments": 1, "queries": 1, "unknown_documents": ["no\nsuch"]}
    assert Judgment.objects.filter(source="import", judged_by=None).get().grade == 2
    api("POST", f"{place}/import", {"judgments": lines[1:]}, 400)
    first = api("GET", f"{place}?limit=1")
    assert len(api("GET", f"{place}?after={first['next_after']}")["judgments"]) == 1


def test_wrong_methods_addresses_and_bodies_are_told_in_our_shape(
    plain: str, birds: Collection
) -> None:
    api = Api(plain)
    headers = bearer(plain)
    wrong = api.client.delete("/api/v1/collections", **headers)
    assert wrong.status_code == 405 and wrong["Allow"] == "GET, POST"
    for path in ("nothing", "collections/a b", "collections/birds/documents/7", "searches/x"):
        assert api("GET", path, status=404)["error"]["code"] == "unknown-address"
    for body in ("{", '"text"', "[]", '{"query": "\\ud800"}', '{"query": "a\\u0000"}', "[" * 9999):
        answer = api.client.post(
            "/api/v1/collections/birds/search",
            data=body,
            content_type="application/json",
            **headers,
        )
        assert answer.status_code == 422, body[:20]
        assert answer.json()["error"]["code"] == "invalid"
    api("GET", f"collections/birds/configs/{10**30}", status=404)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_the_examples_of_the_page_run(live_server: Any, plain: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) >= 8
    script = "set -eu -o pipefail\n" + "\necho; echo ===\n".join(blocks)
    given = {**os.environ, "PODIUM": live_server.url, "KEY": plain, "no_proxy": "*"}
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=given, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stdout.split("===\n")
    for at, text in {
        1: '"slug":"field-guide"',
        2: '"passages":1',
        3: '"status":"not_parsed"',
        4: '"parsing":1',
        6: '"kind":"not ready"',
        7: '"changes":[{"field":"instruction"',
        8: '"unknown_documents":[]',
    }.items():
        assert text in told[at], told[at]
    assert not Collection.objects.filter(slug="field-guide").exists()
