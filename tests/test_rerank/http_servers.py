"""Real HTTP servers in threads: they speak the rerank dialects, and misbehave on request."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """`answer(asked, handler)` returns (status, JSON), or None when it wrote by itself."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [each.body for each in self.asked]


Answerer = Callable[[Asked, BaseHTTPRequestHandler], Any]


@contextmanager
def serving(answer: Answerer, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length))
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with lock:
                server.asked.append(asked)
            said = answer(asked, self)
            if said is not None:
                send(self, *said)

        def do_GET(self) -> None:
            server.asked.append(Asked(self.path, {}, "GET"))
            send(self, 200, {})

        def log_message(self, *args: object) -> None:
            """The tests' output stays theirs."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        accepted: ClassVar[list[socket.socket]] = []

        def process_request(self, request: Any, client_address: Any) -> None:
            self.accepted.append(request)
            super().process_request(request, client_address)

        def handle_error(self, *args: object) -> None:
            """Clients that hang up are part of the tests."""

    running = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        running.socket = tls.wrap_socket(running.socket, server_side=True)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{running.server_address[1]}"
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()
        # Kept connections would be answered by their threads after the end.
        for connection in running.accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def send(
    handler: BaseHTTPRequestHandler, status: int, said: Any, headers: dict[str, str] | None = None
) -> None:
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    handler.send_response(status)
    handler.send_header("content-length", str(len(content)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def overlap(query: str, document: str) -> float:
    """The share of the query's words that the document has: a model anyone can follow."""
    words = query.lower().split()
    return sum(1 for word in words if word in document.lower().split()) / max(1, len(words))


def ranked(query: str, documents: list[str], score: str = "relevance_score") -> list[Any]:
    scored = [
        {"index": place, score: overlap(query, document)}
        for place, document in enumerate(documents)
    ]
    return sorted(scored, key=lambda each: -each[score])
