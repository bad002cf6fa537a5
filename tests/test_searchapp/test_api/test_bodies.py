"""Bodies as they come off the wire, read by the server's own reader of chunks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from searchapp.api.bodies import body_of
from searchapp.api.refusals import Refusal


def request(body: bytes, length: int | None = None) -> WSGIRequest:
    made = RequestFactory().post("/", body, content_type="application/json")
    if length is not None:
        made.META["CONTENT_LENGTH"] = str(length)
        made._stream = io.BytesIO(body)
    return made


def status_of(found: bytes | Refusal) -> int:
    assert isinstance(found, Refusal), found
    return found.status


def test_a_body_is_read_up_to_its_limit_and_no_further() -> None:
    assert body_of(request(b"x" * 1000), 1000) == b"x" * 1000
    for long in (request(b"x" * 1001), request(b"x" * 1001, length=10)):
        refusal = body_of(long, 1000)
        assert isinstance(refusal, Refusal)
        assert refusal.status == 413
        assert "1,000 bytes" in refusal.sentence


def test_a_body_may_be_larger_than_a_form(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    assert body_of(request(b"x" * 1000), 1000) == b"x" * 1000


def test_a_body_that_ends_before_its_length_is_none() -> None:
    """A file whose sender died must not be stored as if that were all of it."""
    stream = Body(LengthReader(IterUnreader(iter([b"x" * 600])), 1000))
    made = RequestFactory().generic("POST", "/", CONTENT_LENGTH="1000", **{"wsgi.input": stream})
    assert status_of(body_of(made)) == 408
    assert status_of(body_of(request(b"x" * 2000, length=5000), 1000)) == 413


class Head:
    """What the server's reader of chunks asks of a request."""

    limit_request_field_size = 8190
    max_buffer_headers = 32768
    trailers: Sequence[Any] = ()

    def parse_headers(self, data: bytes, from_trailer: bool) -> list[Any]:
        return []


def chunked(pieces: Iterator[bytes], coding: str = "chunked", **environ: Any) -> WSGIRequest:
    stream = Body(ChunkedReader(Head(), IterUnreader(pieces)))
    server = {"wsgi.input": stream, "wsgi.input_terminated": True, **environ}
    return RequestFactory().generic("POST", "/", HTTP_TRANSFER_ENCODING=coding, **server)


def written(parts: Sequence[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    return chunks + b"0\r\n\r\n"


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """As a network hands it over: in pieces that know nothing of chunks."""
    ends = sorted({place % len(data) for place in places} - {0})
    return (data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True))


@given(st.lists(st.binary(max_size=300), max_size=30), st.lists(st.integers(0), max_size=20))
def test_chunks_are_put_together_however_they_are_cut(
    parts: list[bytes], places: list[int]
) -> None:
    body = b"".join(parts)
    assert body_of(chunked(cut(written(parts), places)), len(body)) == body
    if body:
        assert status_of(body_of(chunked(cut(written(parts), places)), len(body) - 1)) == 413


@given(
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5),
    st.integers(0),
    st.binary(max_size=3),
    st.integers(0, 3),
)
def test_chunks_that_are_none_are_refused_and_nothing_fails(
    parts: list[bytes], place: int, other: bytes, left_out: int
) -> None:
    data = written(parts)
    place %= len(data)
    data = data[:place] + other + data[place + left_out :]
    found = body_of(chunked(iter([data])), 1000)
    assert isinstance(found, bytes) or found.status in {400, 408, 413}


def test_chunks_that_break_off_are_not_taken_for_the_whole() -> None:
    data = written([b"one", b"two"])
    for end in range(1, len(data)):
        assert status_of(body_of(chunked(iter([data[:end]])))) in {400, 408}


def test_chunks_of_a_byte_do_not_cost_without_limit() -> None:
    """10 MB of them would take all of a processor for 25 seconds."""
    many = written([b"x"] * 1000)[:-5]
    refusal = body_of(chunked(many for _ in range(10_000)))
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (400, "bad-body")
    assert "larger ones" in refusal.sentence
    # A few are nobody's harm, and lines of a file as chunks are not small.
    assert body_of(chunked(iter([many, b"0\r\n\r\n"]))) == b"x" * 1000
    lines = written([b"y" * 60] * 1000)[:-5]
    body = body_of(chunked(each for each in [*[lines] * 60, b"0\r\n\r\n"]))
    assert body == b"y" * 3_600_000


def test_other_codings_and_servers_that_read_no_chunks_are_told() -> None:
    body = written([b"{}"])
    for coding in ("gzip, chunked", "identity", "chunked, chunked", "deflate"):
        assert status_of(body_of(chunked(iter([body]), coding))) == 400
    assert body_of(chunked(iter([body]), " Chunked ")) == b"{}"
    alone = chunked(iter([body]), **{"wsgi.input_terminated": False})
    assert status_of(body_of(alone)) == 411
