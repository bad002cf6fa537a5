"""The real web process beside clients as slow as they can be: others are served."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User

from searchapp.api import links
from searchapp.models import DocumentText
from searchapp.slow_clients import QUICK_SECONDS, PatientSocket
from tests.callers import make_key
from tests.shelves import add_document, make_collection

from .web import WebProcess

pytestmark = pytest.mark.process

SLOW = 20
SECONDS = 3.0
LONGEST = 4.0
BODY = b'{"collection_name": "birds"}'


class Web(WebProcess):
    """`plain`: a key; `file`: the address of a document longer than all buffers on the way to a
    client."""

    def __init__(self, log: Path, plain: str, file: str) -> None:
        super().__init__(log)
        self.plain, self.file = plain, file


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[Web]:
    olive = User.objects.create_user("olive")
    document = add_document(make_collection("birds", user=olive), "Long", ["A heron."])
    DocumentText.objects.update(text="A heron. " * 2_000_000)
    file = links.Links("").document(document.uid)
    web = Web(tmp_path / "web.log", make_key(olive)[1], file)
    try:
        web.wait()
        yield web
    finally:
        web.end()


def head(plain: str, length: int, path: str = "/v1/status/get-status") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {plain}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


# --- ways to be slow. Each does with one connection what it can until the server ends it -------

Way = Callable[[socket.socket, Web, threading.Event], None]


def says_nothing(to_server: socket.socket, web: Web, ended: threading.Event) -> None:
    wait_for_end(to_server, ended)


def trickles_its_head(to_server: socket.socket, web: Web, ended: threading.Event) -> None:
    trickle(to_server, head(web.plain, 10)[:-2] + b"X-Slow: " + b"x" * 1000, ended)


def trickles_its_body(to_server: socket.socket, web: Web, ended: threading.Event) -> None:
    to_server.sendall(head(web.plain, 5000))
    trickle(to_server, b" " * 5000, ended)


def trickles_its_body_without_a_key(
    to_server: socket.socket, web: Web, ended: threading.Event
) -> None:
    to_server.sendall(head("podium_none", 5000))
    trickle(to_server, b" " * 5000, ended)


def sends_half_a_body(to_server: socket.socket, web: Web, ended: threading.Event) -> None:
    to_server.sendall(head(web.plain, 5000) + b" " * 2500)
    wait_for_end(to_server, ended)


def never_reads(to_server: socket.socket, web: Web, ended: threading.Event) -> None:
    to_server.sendall(f"GET {web.file} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    while not ended.wait(1.0):
        if to_server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x01":
            return  # no longer established


def wait_for_end(to_server: socket.socket, ended: threading.Event) -> None:
    to_server.settimeout(0.2)
    while not ended.is_set():
        with suppress(TimeoutError):
            if not to_server.recv(4096):
                return


def trickle(to_server: socket.socket, data: bytes, ended: threading.Event) -> None:
    for at in range(len(data)):
        if ended.wait(1.0):
            return
        to_server.sendall(data[at : at + 1])


@contextmanager
def slow_clients(web: Web, way: Way) -> Iterator[None]:
    """SLOW of them until the block ends. One whose connection ends comes back at once."""
    ended = threading.Event()

    def come_back() -> None:
        while not ended.is_set():
            with suppress(OSError), web.connect() as to_server:
                way(to_server, web, ended)

    with ThreadPoolExecutor(SLOW) as pool:
        for _ in range(SLOW):
            pool.submit(come_back)
        try:
            yield
        finally:
            ended.set()


WAYS: list[Way] = [
    says_nothing, trickles_its_head, trickles_its_body, trickles_its_body_without_a_key,
    sends_half_a_body, never_reads,
]  # fmt: skip


@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_others_are_served_beside_slow_clients_of_every_kind(web: Web) -> None:
    for way in WAYS:
        with slow_clients(web, way):
            time.sleep(1)
            took = asking_for(SECONDS, web)
        assert max(took) < LONGEST, (way.__name__, took)
    serves_a_slow_body_while_there_is_room(web)
    tells_a_body_that_does_not_come_when_there_is_none(web)


def asking_for(seconds: float, web: Web) -> list[float]:
    """How long each answer took, asked one after the other on connections of their own."""
    url = f"http://127.0.0.1:{web.port}/v1/status/get-status"
    headers = {"Authorization": f"Bearer {web.plain}", "Connection": "close"}
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        answer = httpx.post(url, content=BODY, headers=headers, timeout=30)
        took.append(time.monotonic() - began)
        assert answer.status_code == 200
    return took


def serves_a_slow_body_while_there_is_room(web: Web) -> None:
    with web.connect() as to_server:
        to_server.sendall(head(web.plain, len(BODY)))
        for at in range(0, len(BODY), 8):
            time.sleep(0.4)
            to_server.sendall(BODY[at : at + 8])
        assert to_server.recv(4096).startswith(b"HTTP/1.1 200 OK")


def tells_a_body_that_does_not_come_when_there_is_none(web: Web) -> None:
    said = b""
    with slow_clients(web, sends_half_a_body):
        end = time.monotonic() + 20
        while b" 408 " not in said and time.monotonic() < end:
            with web.connect() as to_server, suppress(OSError):
                to_server.sendall(head(web.plain, 100) + BODY)
                to_server.settimeout(3)
                said = b""
                while part := to_server.recv(4096):
                    said += part
    assert b"HTTP/1.1 408 " in said and b"x-should-retry: true" in said
    assert b'{"detail": "The request\'s body did not come' in said


# --- the connection by itself ------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[PatientSocket, socket.socket]]:
    ours, client = socket.socketpair()
    patient = PatientSocket(fileno=ours.detach())
    with patient, client:
        yield patient, client


def test_without_a_place_a_moment_is_all_there_is(pair: Any) -> None:
    patient, client = pair
    patient.begin(places := threading.Semaphore(0))
    client.sendall(b"there")
    assert patient.recv(100) == b"there"
    began = time.monotonic()
    with pytest.raises(ConnectionResetError):
        patient.recv(100)
    assert QUICK_SECONDS <= time.monotonic() - began < QUICK_SECONDS + 1
    assert patient.gave_up
    # What can be done at once can still be done.
    client.sendall(b"late")
    assert patient.recv(100) == b"late"
    patient.sendall(b"told")
    assert client.recv(100) == b"told"
    patient.end()
    assert not places.acquire(blocking=False)


def test_a_place_is_kept_while_bytes_flow_and_given_back(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, client = pair
    monkeypatch.setattr("searchapp.slow_clients.QUICK_SECONDS", 0.05)
    monkeypatch.setattr("searchapp.slow_clients.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("searchapp.slow_clients.LEAST_BYTES_PER_SECOND", 1000)
    places = threading.Semaphore(1)
    patient.begin(places)

    def send() -> None:
        for _ in range(6):
            time.sleep(0.15)
            client.sendall(b"x" * 200)  # more than the least rate

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        received = 0
        while received < 1200:
            received += len(patient.recv(4096))
        assert not places.acquire(blocking=False)
        sending.result()
    with pytest.raises(ConnectionResetError):
        for _ in range(20):  # a byte now and then earns no more time
            client.sendall(b"x")
            patient.recv(1)
            patient.recv(1)
    patient.end()
    assert places.acquire(blocking=False)
    # Outside a request nothing is counted.
    client.sendall(b"next")
    patient.setblocking(True)
    assert patient.recv(100) == b"next"


def test_an_answer_that_is_not_read_is_given_up(pair: Any) -> None:
    patient, _ = pair
    patient.begin(threading.Semaphore(0))
    with pytest.raises(ConnectionResetError):
        patient.sendall(b"x" * 50_000_000)


def test_an_answers_head_goes_out_with_its_body(pair: Any) -> None:
    patient, client = pair
    patient.begin(threading.Semaphore(0))
    told = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    patient.sendall(told)
    client.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    client.settimeout(5)
    patient.sendall(b"there")
    assert client.recv(100) == told + b"there"
    # Behind a body that is not copied the head still comes first.
    patient.sendall(told)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(patient.sendall, b"x" * 100_000)
        received = b""
        while len(received) < len(told) + 100_000:
            received += client.recv(65_536)
        sent.result()
    assert received == told + b"x" * 100_000
    # A stream tells no length, and a head without a body ends with the request.
    patient.sendall(stream := b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.recv(100) == stream
    patient.sendall(told)
    patient.end()
    assert client.recv(100) == told
    patient.begin(threading.Semaphore(0))
    patient.sendall(told)
    client.close()
    patient.end()


@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_a_connection_serves_calls_of_every_kind_one_after_the_other(web: Web) -> None:
    """At once, after a pause longer than its thread waits, with and without a body."""
    url = f"http://127.0.0.1:{web.port}"
    headers = {"Authorization": f"Bearer {web.plain}"}
    with httpx.Client(headers=headers, timeout=30) as client:
        for pause in (0.0, 0.0, 0.1, 0.0):
            time.sleep(pause)
            assert client.post(f"{url}/v1/status/get-status", content=BODY).status_code == 200
            healthy = client.head(f"{url}/healthz")
            assert healthy.status_code == 200 and healthy.content == b""
            assert client.get(f"{url}/v1/nowhere").status_code == 404
    # Two requests in one packet are answered in their order.
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"HEAD /v1/nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with web.connect() as to_server:
        to_server.sendall(asked + last)
        said = b""
        while part := to_server.recv(65_536):
            said += part
    assert said.index(b" 200 OK") < said.index(b" 404 ")
