"""/mcp by the official client of the protocol, against a live server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS

from searchapp.models import ApiUsage, Collection, Document, DocumentStatus, Trace
from tests.callers import make_key
from tests.shelves import add_document, make_collection

from .event_loop import run_async
from .workers import running_worker

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

ALL = {
    "search", "rerank", "list_collections", "read_document", "add_document", "explain_result",
}  # fmt: skip
JSON = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
Work = Callable[[Client], Awaitable[Any]]


class Place:
    """A server with a key's client."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/mcp"

    @asynccontextmanager
    async def client(self, plain: str, mode: str = "auto") -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {plain}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client

    def run(self, plain: str, work: Work, mode: str = "auto") -> Any:
        async def whole() -> Any:
            async with self.client(plain, mode) as client:
                return await work(client)

        try:
            return run_async(whole())
        except BaseExceptionGroup as group:
            # The client's task groups wrap what went wrong, one around the other.
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                (error,) = error.exceptions
            raise error from None

    def call(self, plain: str, tool: str, **arguments: Any) -> Any:
        """The structured answer; an error's too."""

        async def work(client: Client) -> Any:
            return await client.call_tool(tool, arguments)

        found = self.run(plain, work)
        assert bool(found.is_error) == ("error" in found.structured_content)
        return found.structured_content

    def post(self, plain: str, body: Any, **headers: str) -> httpx2.Response:
        shown = {**JSON, "Authorization": f"Bearer {plain}", **headers}
        raw = {"content": body} if isinstance(body, bytes) else {"json": body}
        return httpx2.post(self.url, headers=shown, timeout=60, **raw)


@pytest.fixture
def place(live_server: Any, clean_broker: None) -> Iterator[Place]:
    yield Place(live_server.url)


@pytest.fixture
def birds(olive: User) -> Collection:
    birds = make_collection("birds", user=olive, is_public=False)
    add_document(birds, "Heron", ["The grey heron fishes in the pond.", "It stands still."])
    add_document(
        birds, "Book", ["Of gulls.", "Of herons."], page_starts=[0, 11], page_count=2,
        metadata={"year": "2024"},
    )  # fmt: skip
    return birds


def names(found: Any) -> set[str]:
    return {tool.name for tool in found.tools}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_of_either_era_lists_and_calls_the_tools(
    place: Place, olive: User, birds: Collection, mode: str
) -> None:
    async def work(client: Client) -> Any:
        assert client.server_info.name == "podium"
        listed = await client.list_tools()
        found = await client.call_tool("list_collections", {})
        return client.protocol_version, listed, found

    version, listed, found = place.run(make_key(olive)[1], work, mode)
    assert (version in HANDSHAKE_PROTOCOL_VERSIONS) == (mode == "legacy")
    assert names(listed) == ALL
    for tool in listed.tools:
        assert tool.description and tool.input_schema["type"] == "object"
        assert tool.annotations.read_only_hint == (tool.name != "add_document")
    (collection,) = found.structured_content["collections"]
    assert (collection["name"], collection["documents"], collection["may_add"]) == (
        "birds", 2, True,
    )  # fmt: skip


@pytest.mark.process
def test_what_is_added_is_found_reranked_explained_and_read(
    place: Place, olive: User, birds: Collection, tmp_path: Path
) -> None:
    plain = make_key(olive)[1]
    add: Any = {"collection": "birds", "path": "owl.txt", "text": "An owl hunts mice at night."}
    assert place.call(plain, "add_document", **add)["outcome"] == "added"
    assert place.call(plain, "add_document", **add)["error"]["status"] == 409
    assert place.call(plain, "add_document", **add, overwrite=True)["outcome"] == "replaced"
    with running_worker(tmp_path / "worker.log", "gpu,embed"):
        found = place.call(plain, "search", collection="birds", query="who hunts mice", k=2)
        assert found["rerank"]["status"] == "ok", found["rerank"]
        assert found["rerank"]["model"] and found["rerank"]["scale"]
        assert found["results"][0]["path"] == "owl.txt" and len(found["results"]) <= 2
        assert 0 <= found["results"][0]["relevance"] <= 1
        ranked = place.call(
            plain, "rerank", query="hunts mice", documents=["A boat.", add["text"]], top_n=1
        )
        assert ranked["rerank"]["status"] == "ok" and ranked["results"][0]["index"] == 1
        why = place.call(plain, "explain_result", search=found["search"], path="owl.txt")
    assert why["kind"] == "present" and why["place"]["rank"] == 1
    assert why["place"]["words_rank"] == 1 and why["rerank"]["status"] == "ok"
    text = place.call(plain, "read_document", collection="birds", path="owl.txt")
    assert text["text"] == add["text"] and "next_start" not in text
    assert Trace.objects.get(uid=found["search"]).user == olive
    usage = ApiUsage.objects.totals()
    assert usage["calls"] > 6 and usage["pairs"] > 2 and usage["tokens"] > 0


def test_the_address_may_end_with_a_slash(place: Place, olive: User, birds: Collection) -> None:
    place.url += "/"
    found = place.call(make_key(olive, "search")[1], "list_collections")
    assert [each["name"] for each in found["collections"]] == ["birds"]


def test_without_workers_an_answer_says_that_it_was_not_reranked(
    place: Place, olive: User, birds: Collection
) -> None:
    plain = make_key(olive)[1]
    found = place.call(plain, "search", collection="birds", query="heron")
    assert found["rerank"]["status"] == "unavailable" and found["rerank"]["reason"]
    assert {each["path"] for each in found["results"]} == {"Heron.txt", "Book.txt"}
    only = place.call(
        plain, "search", collection="birds", query="heron", rerank=False,
        filter={"year": {"$gte": "2024"}},
    )  # fmt: skip
    assert only["rerank"]["status"] == "off"
    assert [each["path"] for each in only["results"]] == ["Book.txt"]
    assert only["results"][0]["page"] == 2
    why = place.call(plain, "explain_result", search=only["search"], path="Heron.txt")
    assert (why["kind"], why["place"], why["rerank"]["status"]) == ("filtered", None, "off")
    assert place.call(plain, "rerank", query="q", documents=["a"])["error"]["status"] == 503


def test_documents_are_read_by_pages_and_in_parts(
    place: Place, olive: User, birds: Collection
) -> None:
    plain = make_key(olive)[1]

    def read(**more: Any) -> Any:
        return place.call(plain, "read_document", collection="birds", path="Book.txt", **more)

    assert read(page=2)["text"] == "Of herons."
    assert read(page=3)["error"]["status"] == 404
    text, start = "", 0
    while True:
        part = read(start=start, length=7)
        text += part["text"]
        if "next_start" not in part:
            break
        start = part["next_start"]
    assert text == "Of gulls.\n\nOf herons."
    assert read(start=10**6)["text"] == ""


def test_a_file_that_could_not_be_read_is_not_to_be_waited_for(
    place: Place, olive: User, birds: Collection
) -> None:
    Document.objects.create(collection=birds, path="odd.pdf", status=DocumentStatus.RECEIVED)
    said = place.call(make_key(olive)[1], "read_document", collection="birds", path="odd.pdf")
    assert "could not be read" in said["error"]["message"]


def test_wrong_calls_are_told_what_is_wrong(place: Place, olive: User, birds: Collection) -> None:
    plain = make_key(olive)[1]
    with pytest.raises(MCPError, match="no tool “fly”"):
        place.call(plain, "fly")
    search: Any = {"collection": "birds", "query": "heron"}
    for wrong, word in [
        ({"collection": "birds"}, "query"),
        ({**search, "k": 0}, "k"),
        ({**search, "speed": "fast"}, "speed"),
        ({**search, "filter": {"a": {"$like": "x"}}}, "like"),
        ({**search, "query": "  "}, "query"),
        ({**search, "collection": "birds\0"}, "null"),
        ({**search, "collection": 7}, "collection"),
    ]:
        error = place.call(plain, "search", **wrong)["error"]
        assert error["status"] == 400 and word in error["message"], error
    assert place.call(plain, "read_document", collection="birds", path="x")["error"][
        "status"
    ] == 404  # fmt: skip
    for unknown in (str(uuid4()), "7"):
        error = place.call(plain, "explain_result", search=unknown, path="x")["error"]
        assert error["status"] in {400, 404}
    odd: Any = {"collection": "birds", "path": "odd", "text": "An owl."}
    bad = place.call(plain, "add_document", **odd, metadata={"list:a": "x"})
    assert bad["error"]["code"] == "bad-metadata"
    assert Document.objects.filter(collection=birds).count() == 2


def test_a_key_shows_and_does_what_its_scopes_and_its_owner_allow(
    place: Place, olive: User, birds: Collection
) -> None:
    stranger = User.objects.create_user("stranger")
    hers = make_collection("hers", user=stranger, is_public=False)
    add_document(hers, "Secret", ["A secret heron."])
    searching, ingesting = make_key(olive, "search")[1], make_key(olive, "ingest")[1]
    listed = {each: place.run(each, Client.list_tools) for each in (searching, ingesting)}
    assert names(listed[searching]) == ALL - {"add_document"}
    assert names(listed[ingesting]) == {"list_collections", "read_document", "add_document"}
    add: Any = {"collection": "birds", "path": "a", "text": "A wren."}
    assert place.call(searching, "add_document", **add)["error"]["code"] == "scope-needed"
    found = place.call(ingesting, "search", collection="birds", query="heron")
    assert found["error"]["code"] == "scope-needed"

    plain = make_key(olive)[1]
    mine = place.call(make_key(stranger)[1], "search", collection="hers", query="secret")
    for tool, arguments in [
        ("search", {"collection": "hers", "query": "secret"}),
        ("read_document", {"collection": "hers", "path": "Secret.txt"}),
        ("add_document", {**add, "collection": "hers"}),
        ("explain_result", {"search": mine["search"], "path": "Secret.txt"}),
        ("rerank", {"query": "q", "documents": ["a"], "model": "podium/hers"}),
    ]:
        assert place.call(plain, tool, **arguments)["error"]["status"] == 404, tool
    narrow = make_key(olive, collections=[make_collection("other", user=olive)])[1]
    assert place.call(narrow, "search", collection="birds", query="heron")["error"]["status"] == 404
    hers.is_public = True
    hers.save()
    assert place.call(plain, "search", collection="hers", query="secret")["results"]
    assert place.call(plain, "add_document", **{**add, "collection": "hers"})["error"][
        "code"
    ] == "role-needed"  # fmt: skip


def test_keys_that_are_none_get_401_and_its_sentence(place: Place, olive: User) -> None:
    _, plain = make_key(olive, expires_at=timezone.now() - timedelta(seconds=1))
    judging = make_key(olive, "judge")[1]
    for shown, status, word in [
        (plain, 401, "expired"),
        ("podium_" + "x" * 43, 401, "not known"),
        (judging, 403, "lacks the scope"),
    ]:
        with pytest.raises(MCPError, match=word):
            place.run(shown, Client.list_tools, "legacy")
        answer = place.post(shown, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert answer.status_code == status
        assert ("www-authenticate" in answer.headers) == (status == 401)
    assert httpx2.post(place.url, json={}).status_code == 401


def test_a_spent_limit_is_429_with_the_time_to_wait(
    place: Place, olive: User, settings: Any
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    plain = make_key(olive)[1]
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert place.post(plain, ping).status_code == 200
    answer = place.post(plain, ping)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0


def test_versions_are_negotiated_and_there_are_no_sessions(place: Place, olive: User) -> None:
    plain = make_key(olive)[1]

    def initialize(version: str) -> httpx2.Response:
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        return place.post(plain, body)

    for version in ("2025-03-26", "2025-06-18", "2025-11-25"):
        answer = initialize(version)
        assert answer.json()["result"]["protocolVersion"] == version
        assert "mcp-session-id" not in answer.headers
    assert initialize("1999-01-01").json()["result"]["protocolVersion"] == "2025-11-25"
    ping = {"jsonrpc": "2.0", "id": 7, "method": "ping"}
    assert place.post(plain, ping, **{"MCP-Protocol-Version": "1999-01-01"}).status_code == 400
    told = place.post(plain, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (told.status_code, told.content) == (202, b"")
    for method in ("GET", "DELETE", "PUT"):
        answer = httpx2.request(
            method, place.url, headers={"Authorization": f"Bearer {plain}", **JSON}
        )
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_odd_bodies_are_refused_and_never_fail(place: Place, olive: User) -> None:
    plain = make_key(olive)[1]
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for body in (
        b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'"\\ud800"', b"[" * 100_000, b"{}",
        b'{"jsonrpc": "2.0", "id": 1}', b"x" * (settings.API_MAX_BODY_BYTES + 1),
    ):  # fmt: skip
        answer = place.post(plain, body)
        assert 400 <= answer.status_code < 500, (body[:20], answer.text)
        modern = place.post(plain, body, **{"MCP-Protocol-Version": "2026-07-28"})
        assert 400 <= modern.status_code < 500, (body[:20], modern.text)
    assert place.post(plain, {**ping, "method": "fly"}).json()["error"]["code"] == -32601
    assert place.post(plain, ping, Accept="text/html").status_code == 406
    assert place.post(plain, ping, **{"Content-Type": "text/plain"}).status_code in {400, 415}
    assert place.post(plain, ping, Origin="https://elsewhere.example").status_code == 403
    own = place.url.removesuffix("/mcp")
    assert place.post(plain, ping, Origin=own).status_code == 200


def test_clients_at_once_each_act_by_their_own_key(
    place: Place, olive: User, birds: Collection
) -> None:
    stranger = User.objects.create_user("stranger")
    make_collection("hers", user=stranger, is_public=False)
    keys = {"birds": make_key(olive)[1], "hers": make_key(stranger)[1]}

    async def one(own: str) -> list[list[str]]:
        async with place.client(keys[own]) as client:
            calls = [client.call_tool("list_collections", {}) for _ in range(8)]
            found = await asyncio.gather(*calls)
        return [[row["name"] for row in each.structured_content["collections"]] for each in found]

    async def both() -> list[list[list[str]]]:
        return await asyncio.gather(one("birds"), one("hers"))

    assert run_async(both()) == [[["birds"]] * 8, [["hers"]] * 8]
