"""The body of a call: whole, or the reason why not. Nothing else reads one."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest
from gunicorn.http.errors import ParseException

from .refusals import Refusal

# Chunks are read in pieces of so many bytes, the first small, each next one twice as large.
FIRST_PIECE, LARGEST_PIECE = 4096, 1024 * 1024
# What taking a body apart may cost of the processor, altogether and for each MiB. Chunks of 20
# bytes cost as much; of one byte, twenty times that, while all others wait for the interpreter.
READING_SECONDS = 0.5
SECONDS_PER_MIB = 0.125

BROKEN_OFF = Refusal(
    408, "too-slow", "The request's body did not come, or too slowly.", retry_after=1.0
)
NOT_CHUNKED = Refusal(
    400, "bad-body", "The request's body is not written in chunks as its headers say."
)
TINY_CHUNKS = Refusal(
    400, "bad-body", "The request's body comes in too many small chunks. Send larger ones."
)
OTHER_CODING = Refusal(
    400, "bad-body", "Send the body as it is or in chunks: no other Transfer-Encoding is read here."
)
NO_LENGTH = Refusal(411, "no-length", "Send the length of the body in the header Content-Length.")


def body_of(request: HttpRequest, most: int | None = None) -> bytes | Refusal:
    """The request's body of up to `most` bytes (default: API_MAX_BODY_BYTES). Never reads more,
    whatever the headers say, and reads past Django's limit for forms where `most` is larger.

    400 for chunks that are none, 413 for a body that is too long, 408 for one that broke off, or
    came so slowly that others would have had to wait for it.
    """
    most = settings.API_MAX_BODY_BYTES if most is None else most
    coding = request.headers.get("Transfer-Encoding", "").strip().lower()
    if not coding:
        body = _read(request.read, most, most + 1)
        # A connection that ends early looks like the end of the body.
        if isinstance(body, bytes) and len(body) < min(_length(request), most + 1):
            return BROKEN_OFF
    elif coding != "chunked":
        return OTHER_CODING
    elif not request.META.get("wsgi.input_terminated"):
        return NO_LENGTH
    else:
        # Django takes a body without a length for an empty one. The server's own stream ends where
        # the last chunk does.
        body = _read(request.META["wsgi.input"].read, most, FIRST_PIECE)
    if isinstance(body, Refusal) or len(body) <= most:
        return body
    return Refusal(413, "too-large", f"A request's body may have up to {most:,} bytes.")


def _read(read: Callable[[int], bytes], most: int, size: int) -> bytes | Refusal:
    """Up to one byte more than `most`: enough to see that there was more. `size`: of the first
    piece."""
    body, began = bytearray(), time.thread_time()
    while len(body) <= most:
        try:
            piece = read(min(size, most + 1 - len(body)))
        except OSError:
            return BROKEN_OFF
        except ParseException:
            return NOT_CHUNKED
        if not piece:
            break
        body += piece
        if time.thread_time() - began > READING_SECONDS + SECONDS_PER_MIB * len(body) / 2**20:
            return TINY_CHUNKS
        size = min(2 * size, LARGEST_PIECE)
    return bytes(body)


def _length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0
