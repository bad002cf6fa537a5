"""The real web process and bodies without a length: read whole, refused in the caller's words, and
never a way to slip a second request past whoever counts them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User

from searchapp.models import Upload
from tests.callers import make_key
from tests.shelves import make_collection

from .web import WebProcess

pytestmark = pytest.mark.process

MOST = 200_000
CHUNKED = "Transfer-Encoding: chunked"
# Read whole, each is answered without a worker, and otherwise than {} is.
RERANK = {"query": "heron", "model": "nobody/none", "documents": ["a heron", "a tit"]}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/models/rerank": RERANK,
    "/v1/collections/add-collection": {"collection_name": "birds"},
    "/api/v1/collections": {"name": "birds", "nobody": "knows this"},
    "/v1/embeddings": {"model": "nobody/none", "input": "a heron"},
    "/cohere/v2/rerank": RERANK,
    "/jina/v1/rerank": RERANK,
    "/voyage/v1/rerank": RERANK,
    "/vllm/v1/rerank": RERANK,
    "/tei/rerank": {"query": "heron", "texts": [7]},
    "/mcp": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
}


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[WebProcess]:
    """With one place for slow clients."""
    web = WebProcess(tmp_path / "web.log", API_MAX_BODY_BYTES=str(MOST), WEB_THREADS="3")
    try:
        web.wait()
        yield web
    finally:
        web.end()


def head(plain: str, *fields: str, path: str = "/v1/status/get-status") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {plain}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunks(body: bytes, size: int = 7) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def said(web: WebProcess, data: bytes, *, ends: bool = False) -> bytes:
    """All that comes back until the server closes, or says nothing more for a while."""
    with web.connect() as to_server, suppress(OSError):
        to_server.sendall(data)
        if ends:
            to_server.shutdown(socket.SHUT_WR)
        return heard(to_server)
    return b""


def heard(to_server: socket.socket, seconds: float = 1.5) -> bytes:
    answer = b""
    to_server.settimeout(seconds)
    with suppress(OSError):
        while part := to_server.recv(65_536):
            answer += part
    return answer


def statuses(answer: bytes) -> list[int]:
    """Of every answer in it: there must not be more than requests."""
    return [int(part[2:5]) for part in answer.split(b"HTTP/1.")[1:]]


@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_bodies_in_chunks(web: WebProcess, tmp_path: Path) -> None:
    olive = User.objects.create_user("olive")
    make_collection("birds", user=olive)
    plain = make_key(olive)[1]
    every_api_reads_them_whole(web, plain)
    a_file_arrives_as_it_was_sent(web, plain)
    the_next_request_begins_where_they_end(web, plain)
    broken_ones_are_refused_and_end_the_connection(web, plain)
    what_nobody_reads_is_not_answered_twice(web, plain)
    two_lengths_are_none(web, plain)
    long_and_costly_ones_are_refused(web, plain)
    slow_ones_wait_for_a_place(web, plain)
    assert b"Traceback" not in web.log.read_bytes()


def every_api_reads_them_whole(web: WebProcess, plain: str) -> None:
    headers = {
        "Authorization": f"Bearer {plain}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }

    def post(path: str, content: Any) -> tuple[int, Any]:
        answer = httpx.post(web.url + path, content=content, headers=headers, timeout=30)
        return answer.status_code, answer.json()

    for path, call in CALLS.items():
        body = json.dumps(call).encode()
        whole = post(path, body)
        assert post(path, iter([body[:5], body[5:]])) == whole, path
        assert post(path, iter([b"{}"])) == post(path, b"{}") != whole, path
        assert whole[0] < 500


def a_file_arrives_as_it_was_sent(web: WebProcess, plain: str) -> None:
    content = bytes(range(256)) * 3000  # above the limit of other calls, and no text
    sent = (content[at : at + 10_007] for at in range(0, len(content), 10_007))
    answer = httpx.post(
        f"{web.url}/api/v1/collections/birds/files?path=a.bin",
        content=sent,
        headers={"Authorization": f"Bearer {plain}"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    with Upload.objects.get().file.open() as file:
        assert file.read() == content


def the_next_request_begins_where_they_end(web: WebProcess, plain: str) -> None:
    body = b'{"collection_name": "birds"}'
    one = head(plain, CHUNKED) + chunks(body)[:-2] + b"X-Trailer: here\r\n\r\n"
    other = head(plain, CHUNKED, "Connection: close") + chunks(b'{"collection_name": "none"}')
    answer = said(web, one + one + other)
    assert statuses(answer) == [200, 200, 404]


def broken_ones_are_refused_and_end_the_connection(web: WebProcess, plain: str) -> None:
    """What follows could be anything, so it is no request."""
    sneaked = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for broken in (
        b"5\r\n{}   0\r\n\r\n", b"x\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n", b"\r\n", b"2;\r\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
        b"2\r\n{}\r\n0\r\nno header\r\n\r\n", b"z" * 9000, b"2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 900,
    ):  # fmt: skip
        answer = said(web, head(plain, CHUNKED) + broken + b"\r\n" + sneaked)
        assert statuses(answer) == [400], (broken[:40], answer)
        assert b'{"detail": "The request\'s body is not written in chunks' in answer
        assert b"x-should-retry: false" in answer
    broken_off = head(plain, CHUNKED) + b"1c\r\n" + b'{"collection_name":'
    answer = said(web, broken_off, ends=True)
    assert statuses(answer) == [408] and b"x-should-retry: true" in answer
    answer = said(web, head(plain, "Content-Length: 99") + b"{}", ends=True)
    assert statuses(answer) == [408]


def what_nobody_reads_is_not_answered_twice(web: WebProcess, plain: str) -> None:
    for key, path, status in (
        ("podium_none", "/v1/status/get-status", 401),
        (plain, "/v1/nowhere", 404),
        (plain, "/tei/health", 405),
    ):
        answer = said(web, head(key, CHUNKED, path=path) + b"x\r\n{}\r\n0\r\n\r\n")
        assert statuses(answer) == [status], (path, answer)


def two_lengths_are_none(web: WebProcess, plain: str) -> None:
    """The server that Podium runs in closes these before Podium sees them."""
    sneaked = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for fields in (
        ["Content-Length: 5", CHUNKED], [CHUNKED, "Content-Length: 5"], [CHUNKED, CHUNKED],
        ["Transfer-Encoding: chunked, identity"], ["Transfer-Encoding : chunked"],
        ["Content-Length: 5", "Content-Length: 6"], ["Transfer-Encoding: identity"],
    ):  # fmt: skip
        answer = said(web, head(plain, *fields) + b"0\r\n\r\n" + sneaked)
        assert statuses(answer) == [400], (fields, answer)
    old = head(plain, CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert statuses(said(web, old + b"0\r\n\r\n" + sneaked)) == [400]
    packed = head(plain, "Transfer-Encoding: gzip, chunked") + chunks(b"{}") + sneaked
    answer = said(web, packed)
    assert statuses(answer) == [400] and b"no other Transfer-Encoding" in answer


def long_and_costly_ones_are_refused(web: WebProcess, plain: str) -> None:
    for path, refusal in (
        ("/v1/status/get-status", b'{"detail": "A request\'s body may have up to 200,000 bytes."}'),
        ("/api/v1/collections", b'"code":"too-large"'),
        ("/cohere/v2/rerank", b"may have up to 200,000 bytes"),
        ("/mcp", b'"code":"too-large"'),
    ):
        answer = said(web, head(plain, CHUNKED, path=path) + chunks(b" " * 2 * MOST, 5000))
        assert statuses(answer) == [413] and refusal in answer, (path, answer)


def slow_ones_wait_for_a_place(web: WebProcess, plain: str) -> None:
    """The first takes the one place, the second finds none."""
    half = head(plain, CHUNKED) + b'1c\r\n{"collection_name"'
    with web.connect() as first, web.connect() as second:
        first.sendall(half)
        time.sleep(1.5)
        second.sendall(half)
        answer = heard(second, 5)
        assert statuses(answer) == [408] and b"x-should-retry: true" in answer
        first.sendall(b': "birds"}\r\n0\r\n\r\n')
        assert statuses(heard(first)) == [200]
