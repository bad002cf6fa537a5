"""How long the web process waits for its clients: gunicorn's worker of threads, with a patience.

gunicorn lends every request a thread and then waits without limit: for the head, for the body, and
for the client to read the answer. A few that send a byte now and then would hold every thread.

Here a request may wait for its client QUICK_SECONDS altogether. Who needs longer takes one of the
places for slow clients, half as many as there are threads, and keeps it while bytes flow at the
least rate; who finds none free is let go. So slow clients are served while there is room, and never
hold more than half of the threads for longer than a moment.

Only waiting counts, not the time in which the request is served. A proxy that takes requests and
answers for its clients, as nginx does, spares all of this.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gunicorn import util
from gunicorn.http.errors import ParseException
from gunicorn.workers import gthread

# How long a thread waits for the first byte of a connection; after it, nobody does until it comes.
FIRST_BYTE_SECONDS = 0.1
# What any request may wait for its client altogether without a place.
QUICK_SECONDS = 0.5
# With a place: so long, and a second more for each of so many bytes that came or went.
PATIENCE_SECONDS = 20.0
LEAST_BYTES_PER_SECOND = 16_384
# How long after the last answer a client may take to end the connection itself.
LINGER_SECONDS = 0.5
# A thread that nobody waits for looks so long for the client's next request: handing the connection
# to the poller and back costs two more threads' turns.
NEXT_MILLISECONDS = 5
# A longer part of an answer's body is not copied behind the head.
_JOINED_BYTES = 65_536

Moved = TypeVar("Moved")


class PatientSocket(socket.socket):
    """A connection that counts how long it waits for its client, between `begin` and `end`.

    Where that is too long, reading and writing raise ConnectionResetError: to what is above, the
    client has gone.
    """

    _places: threading.Semaphore | None = None
    # Of an answer, until its body comes.
    _head = b""

    def begin(self, places: threading.Semaphore) -> None:
        """A request: nothing is waited yet."""
        self._places = places
        self._has_place = self.is_hurried = self.gave_up = False
        self._waited = 0.0
        self._bytes = 0
        self._head = b""

    def end(self) -> None:
        """Sends what is kept back. Nothing is raised: an answer that ends here is a head alone."""
        with contextlib.suppress(OSError):
            self._send_head()
        if self._has_place and self._places is not None:
            self._places.release()
        self._places, self._has_place = None, False

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        received = self._patiently(partial(super().recv, bufsize, flags))
        self._bytes += len(received)
        return received

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """The head of an answer waits for its body, so that both go out as one and the client wakes
        once. Where no length is told, as in a stream, it does not wait."""
        if self._places is not None and _is_head(data):
            self._send_head()
            self._head = bytes(data)
            return
        if len(data) <= _JOINED_BYTES:
            data, self._head = self._head + bytes(data), b""
        self._send_head()
        self._send(data, flags)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._send(head)

    def _send(self, data: Any, flags: int = 0) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            sent = self._patiently(partial(super().send, rest, flags))
            self._bytes += sent
            rest = rest[sent:]

    def _patiently(self, act: Callable[[], Moved]) -> Moved:
        """The first try does not wait: what is there already costs nothing."""
        if self._places is None:
            return act()
        timeout = 0.0
        while True:
            self.settimeout(timeout)
            began = time.monotonic()
            try:
                return act()
            except (BlockingIOError, TimeoutError):
                pass
            finally:
                self._waited += time.monotonic() - began
            timeout = self._time_left()

    def _time_left(self) -> float:
        """Seconds, above 0. Raises ConnectionResetError when there are none."""
        left = QUICK_SECONDS - self._waited
        if left <= 0 and self._place():
            earned = self._bytes / LEAST_BYTES_PER_SECOND
            left = PATIENCE_SECONDS + earned - self._waited
        if left <= 0:
            self.gave_up = True
            raise ConnectionResetError(errno.ECONNRESET, "the client is too slow")
        return left

    def _place(self) -> bool:
        if not self._has_place and self._places is not None and not self.is_hurried:
            self._has_place = self._places.acquire(blocking=False)
        return self._has_place and not self.is_hurried


class Worker(gthread.ThreadWorker):
    """gunicorn's, without the waits that a client could make long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = threading.Semaphore(max(1, self.cfg.threads // 2))

    def handle(self, conn: Any) -> Any:
        """Requests of one connection, in a thread of the pool, while they come at once; whether the
        connection stays open after them."""
        stays = self._handle_one(conn)
        while stays is True and self._next_is_here(conn):
            stays = self._handle_one(conn)
        return stays

    def _next_is_here(self, conn: Any) -> bool:
        if not self.alive or self.tpool._work_queue.qsize() or conn.parser.unreader.buf.getvalue():
            return False
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(NEXT_MILLISECONDS))

    def _handle_one(self, conn: Any) -> Any:
        if not conn.initialized:
            if not conn.wait_for_data(FIRST_BYTE_SECONDS):
                return gthread._DEFER
            conn.sock = PatientSocket(fileno=conn.sock.detach())
        conn.sock.begin(self._places)
        try:
            stays = super().handle(conn)
        finally:
            conn.sock.end()
        if not stays:
            _let_go(conn.sock)
        return stays

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """A body that nobody asked for is not waited for, and where it is broken nothing is said:
        the request has its answer, and another one would be taken for that of the next."""
        conn.sock.is_hurried = True
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except ParseException:
            return False

    def finish_request(self, conn: Any, fs: Any) -> None:
        if conn.sock.fileno() == -1:  # its thread has closed it
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)


def _is_head(data: Any) -> bool:
    return bytes(data[:9]) == b"HTTP/1.1 " and b"\r\nContent-Length: " in bytes(data)


def _let_go(connection: PatientSocket) -> None:
    """Closes it, and here: gunicorn would, waiting in the one thread that accepts connections."""
    if connection.gave_up:
        util.close(connection)
    else:
        util.close_graceful(connection, timeout=LINGER_SECONDS)
