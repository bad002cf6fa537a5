"""Whatever is sent to whichever API: told what is wrong in the shape of that API, or served; never
a failure of the server, and never a word of what belongs to somebody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from searchapp.api.own.endpoint import ENDPOINTS as OWN
from searchapp.api.v1.endpoint import ENDPOINTS as V1
from searchapp.engine import broker
from searchapp.models import SearchConfig, TrainingJob, TrainingState
from searchapp.search import pipeline, traces
from tests.callers import bearer, make_key
from tests.shelves import add_document, make_collection

from .event_loop import run_apart
from .odd_bodies import ODD_TEXTS, odd_fields, raw_bodies
from .test_dialects import ADDRESSES, told
from .test_own_rights import CASES, address
from .test_v1_rights import CALLS

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

SECRET = "kingfisher"
TOOLS: dict[str, dict[str, Any]] = {
    "search": {"collection": "own", "query": "heron"},
    "rerank": {"query": "heron", "documents": ["A heron."]},
    "list_collections": {},
    "read_document": {"collection": "own", "path": "Heron.txt"},
    "add_document": {"collection": "own", "path": "gull", "text": "A gull.", "overwrite": True},
    "explain_result": {"search": "7", "path": "Heron.txt"},
}


@dataclass(frozen=True)
class Target:
    """One endpoint. `right`: a body that fits. `sentence`: what a refusal says; it fails on any
    other shape than the API's own. `more`: fields that are odd too, beside those of the body."""

    url: str
    right: dict[str, Any]
    sentence: Callable[[Any], Any]
    method: str = "POST"
    more: tuple[str, ...] = ()


@dataclass
class World:
    client: Client
    plain: str
    ids: dict[str, Any]

    def send(
        self,
        target: Target,
        body: bytes | dict[str, Any],
        kind: str = "application/json",
        **headers: str,
    ) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = {**bearer(self.plain)["headers"], "accept": "application/json", **headers}

        def ask() -> Any:
            return self.client.generic(target.method, target.url, raw, kind, headers=more)

        # The protocol's SDK starts a loop, and while a browser of other tests is open, this
        # thread has one already.
        answer = run_apart(ask) if target.url == MCP.url else ask()
        check(target, answer, raw)
        return answer


def check(target: Target, answer: Any, sent: object) -> None:
    what = (target.url, str(sent)[:300], answer.status_code)
    content = b"".join(answer) if answer.streaming else answer.content
    if answer.status_code == 503:  # the only failure here: there is no worker
        said = target.sentence(json.loads(content))
        assert "worker" in str(said), (what, content[:300])
    else:
        assert answer.status_code < 500, (what, content[:300])
    if answer.status_code >= 400:
        assert target.sentence(json.loads(content)), what
        # Assistants do not read it, and their refusals are often the protocol's own.
        assert "x-should-retry" in answer.headers or target.url == "/mcp", what
    assert SECRET.encode() not in content.lower(), what
    assert "stolen" not in str(answer.cookies), what
    for name, value in answer.headers.items():
        assert "\r" not in name + value and "\n" not in name + value, what


@pytest.fixture
def world(transactional_db: None, settings: Any, tmp_path: Any) -> World:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.API_REQUESTS_PER_MINUTE = 0
    broker.connection().flushdb()
    olive, other = User.objects.create_user("olive"), User.objects.create_user("other")
    theirs = make_collection("theirs", user=other, is_public=False)
    add_document(theirs, SECRET, [f"The {SECRET} of another."])
    own = make_collection("own", user=olive, is_public=False)
    heron = add_document(own, "Heron", ["A heron in the reeds."], page_starts=[0], page_count=1)
    config = pipeline.active_config(own)
    training = TrainingJob.objects.create(collection=own, config=config, state=TrainingState.DONE)
    SearchConfig.objects.create(collection=own, version=2)
    trace = traces.record(pipeline.start("heron", own, user=olive), olive)
    ids = {"document": heron.uid, "search": trace.uid, "training": training.uid}
    client = Client(raise_request_exception=False)
    return World(client, make_key(olive)[1], ids)


# --- the endpoints and the shapes of their refusals --------------------------------------------


def of_v1(body: Any) -> Any:
    assert set(body) == {"detail"}
    if isinstance(body["detail"], list):
        assert all(set(each) == {"loc", "msg", "type"} for each in body["detail"])
    return body["detail"]


def of_own(body: Any) -> Any:
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "fields"}
    return body["error"]["message"]


def of_openai(body: Any) -> Any:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]["message"]


def of_mcp(body: Any) -> Any:
    assert body["jsonrpc"] == "2.0" and isinstance(body["error"]["code"], int)
    return body["error"]["message"]


def v1_targets() -> list[Target]:
    return [
        Target(f"/v1/{path}", {"collection_name": "own", **right}, of_v1, more=tuple(
            sorted(set(V1[path].schema.model_fields) - {*right, "collection_name"})
        ))
        for path, (right, _) in CALLS.items()
        if path != "collections/delete-collection"
    ]  # fmt: skip


def dialect_targets() -> list[Target]:
    def of(name: str) -> Callable[[Any], Any]:
        return lambda body: told(name, body)

    found = [
        Target(f"/{name}", right, of(name), more=("model", "top_n", "instruction"))
        for name, right in ADDRESSES.items()
    ]
    embedding = {"model": "default", "input": "A heron."}
    more = ("dimensions", "encoding_format", "input_type")
    return [*found, Target("/v1/embeddings", embedding, of_openai, more=more)]


def own_targets(ids: dict[str, Any]) -> list[Target]:
    found = []
    for each in OWN:
        right = CASES[each.name].body
        if isinstance(right, dict):
            url = address(each.path, "own", ids)
            more = tuple(sorted(set(each.body.model_fields if each.body else {}) - set(right)))
            found.append(Target(url, right, of_own, each.method, more))
    assert len(found) > 6
    return found


MCP = Target("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, of_mcp, more=("params", "x"))


def calling(tool: str, arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


# --- bodies ------------------------------------------------------------------------------------


def test_v1_refuses_every_odd_body_in_its_own_shape(world: World) -> None:
    fuzz(world, v1_targets())


def test_the_dialects_refuse_every_odd_body_in_their_own_shapes(world: World) -> None:
    fuzz(world, dialect_targets())


def test_our_own_api_refuses_every_odd_body_in_its_own_shape(world: World) -> None:
    fuzz(world, own_targets(world.ids))


def fuzz(world: World, targets: list[Target]) -> None:
    for number, target in enumerate(targets):
        # All of them at each address would only be slow: bytes are read in one place.
        for body in raw_bodies(target.right)[number % 4 :: 4]:
            world.send(target, body)
        for body in odd_fields(target.right, target.more, number):
            world.send(target, body)


def test_assistants_are_told_of_odd_messages_and_arguments(world: World) -> None:
    for body in raw_bodies(MCP.right)[::2]:
        world.send(MCP, body)
    for body in odd_fields(MCP.right, MCP.more):
        world.send(MCP, body)
    for tool, right in TOOLS.items():
        for arguments in odd_fields(right, ("filter", "k", "metadata"), len(tool)):
            answer = world.send(MCP, calling(tool, arguments))
            if answer.status_code == 200 and "result" in answer.json():
                refused = answer.json()["result"]["structuredContent"].get("error", {})
                status = refused.get("status", 200)
                assert status < 500 or "worker" in refused["message"], (tool, arguments, refused)


def test_random_json_is_refused_or_served(world: World) -> None:
    targets = [*v1_targets(), *dialect_targets(), *own_targets(world.ids), MCP]
    texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )
    names = sorted({name for each in targets for name in (*each.right, *each.more)})

    @hypothesis_settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(targets),
        st.dictionaries(st.sampled_from(names) | texts, values, max_size=6) | values,
        st.booleans(),
    )
    def try_it(target: Target, odd: Any, is_added: bool) -> None:
        if is_added and isinstance(odd, dict):
            odd = {**target.right, **odd}
        world.send(target, json.dumps(odd).encode())

    try_it()


KINDS = [
    "", "text/plain", "text/xml", "application/json; charset=utf-16",
    "application/json; charset=nonsense", "application/x-www-form-urlencoded",
    "multipart/form-data", "multipart/form-data; boundary=x", "application/octet-stream", "x" * 500,
]  # fmt: skip


def test_the_content_type_changes_nothing_but_for_assistants(world: World) -> None:
    for target in (*v1_targets()[:3], *dialect_targets(), *own_targets(world.ids)[:3]):
        usual = world.send(target, target.right).status_code
        for kind in KINDS:
            status = world.send(target, target.right, kind).status_code
            # What was added by the first call is there at the second.
            assert status == usual or {status, usual} <= {200, 201, 409}, (target.url, kind)
    for kind in KINDS:
        assert world.send(MCP, MCP.right, kind).status_code in {200, 400, 415}


def test_bodies_above_the_limit_are_413_in_every_shape(world: World, settings: Any) -> None:
    settings.API_MAX_BODY_BYTES = 2000
    # These have limits of their own, as large as files.
    unlimited = {
        "/v1/documents/add-document",
        "/api/v1/collections/own/documents",
        "/api/v1/collections/own/judgments/import",
    }
    for target in (*v1_targets(), *dialect_targets(), *own_targets(world.ids), MCP):
        if target.url not in unlimited:
            for body in (b" " * 2001, json.dumps({**target.right, "x": "y" * 3000}).encode()):
                assert world.send(target, body).status_code == 413, target.url


# --- what is around a body ---------------------------------------------------------------------

ODD_PARTS = [
    "%00", "%ff", "%ed%a0%80", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%0d%0aSet-Cookie:a=b",
    "theirs", "x" * 3000, "own%00", "{slug}", "%25%30%30", "own;x=y", "😀", "0", "-1",
]  # fmt: skip


def test_odd_addresses_and_parameters_are_told(world: World) -> None:
    for number, each in enumerate(OWN):
        right = CASES[each.name]
        for part in ODD_PARTS[number % 2 :: 2]:
            path = each.path.replace("<slug:slug>", part, 1) if "<slug" in each.path else each.path
            path = path.replace("<uuid:uid>", part if path == each.path else str(world.ids))
            path = "/api/v1/" + path.replace("<int:version>", "9" * 40)
            body = right.body if isinstance(right.body, bytes) else json.dumps(right.body).encode()
            world.send(Target(path, {}, of_own, each.method), body)
        if each.query is not None:
            url = address(each.path, "own", world.ids)
            for turn, name in enumerate((*each.query.model_fields, "unknown", "%00")):
                for part in ODD_PARTS[turn % 4 :: 4]:
                    asked = Target(f"{url}?{name}={part}&{name}={part}", {}, of_own, each.method)
                    world.send(asked, b"")
    shapes = {"v1": of_v1, "api/v1": of_own}
    for prefix, sentence in shapes.items():
        for part in ODD_PARTS:
            for method in ("GET", "POST", "TRACE"):
                answer = world.client.generic(method, f"/{prefix}/nothing/{part}")
                assert answer.status_code == 404 and sentence(answer.json())


def test_odd_headers_are_refused(world: World) -> None:
    lines = [
        "", "Bearer", "Bearer ", "Basic b2xpdmU6eA==", "Bearer " + "x" * 9000, "Bearer podium_",
        "Bearer podium_" + "é" * 43, "Bearer \0", f"Bearer {world.plain}x", world.plain,
        f"Bearer {world.plain}, Bearer {world.plain}", "Token " + world.plain, "bearer\t" + "x",
    ]  # fmt: skip
    one_of_each = [v1_targets()[0], *dialect_targets(), own_targets(world.ids)[0], MCP]
    for target in one_of_each:
        for line in lines:
            assert world.send(target, target.right, authorization=line).status_code == 401
        for host in ("elsewhere.example", "a b", "", "[", "x" * 300, "127.0.0.1:x"):
            answer = world.client.generic(
                target.method, target.url, b"{}", headers={"host": host, "authorization": "x"}
            )
            assert answer.status_code in {400, 401}, host
    for name, value in [
        ("mcp-protocol-version", "\x7f" * 50), ("mcp-session-id", "é"), ("accept", "*/*"),
        ("origin", "null"), ("last-event-id", "x" * 3000), ("mcp-method", "\x01"),
    ]:  # fmt: skip
        world.send(MCP, MCP.right, **{name: value})
