"""JSON over HTTP with retries, within a deadline that holds whatever the other side does."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from rerank.errors import BadRecipe, EndpointError

Result = TypeVar("Result")

RETRIED = {408, 409, 429}
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 8.0
LONGEST_DETAIL = 300
DETAIL_KEYS = ("detail", "message", "error", "msg")


class TooLarge(EndpointError):
    """The endpoint says the request is too large: 413."""


class _Passing(Exception):
    """A failure that may pass. `wait_seconds`: how long the endpoint asked to wait, if it did."""

    def __init__(self, sentence: str, wait_seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.wait_seconds = wait_seconds


class JsonClient:
    """POSTs JSON to one address.

    `timeout_seconds` bounds a whole `run`, retries and waits included; `connect_seconds` and
    `read_seconds` one attempt's connection and its longest silence. Failures that may pass (408,
    409, 429, 5xx, broken connections) are tried `max_retries` times more, after what the endpoint
    asks for in Retry-After, else after waits that double. No redirects are followed, certificates
    are verified, and no proxy or password is taken from the environment. The key is sent as a
    bearer token, or bare in `key_header`, and stands in no message.

    Connections live in a thread of this object's own, so that they are reused between calls and a
    call can be given up at any moment.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        key_name: str = "",
        *,
        timeout_seconds: float = 30.0,
        connect_seconds: float = 5.0,
        read_seconds: float | None = None,
        max_retries: int = 2,
        max_answer_bytes: int = 64 * 2**20,
        key_header: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._key = key
        self._key_name = key_name
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._max_answer_bytes = max_answer_bytes
        self._key_header = key_header
        self._headers = dict(headers or {})
        self._timeouts = httpx2.Timeout(
            timeout_seconds, connect=connect_seconds, read=read_seconds or timeout_seconds
        )
        self._opening = threading.Lock()
        self._process = 0
        self._loop: asyncio.AbstractEventLoop
        self._http: httpx2.AsyncClient

    @property
    def host(self) -> str:
        return urlsplit(self._url).netloc

    @property
    def address(self) -> str:
        """Without what stands behind a question mark, which may be nobody's business."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    @property
    def _who(self) -> str:
        return f"The endpoint {self.address}"

    def run(self, work: Callable[[float], Awaitable[Result]]) -> Result:
        """The result of `work(deadline)`, which awaits `post` as often as it likes; the deadline is
        in seconds of the monotonic clock. May be called in any thread, by several at a time.

        Raises EndpointError, also when the time is over.
        """
        future = asyncio.run_coroutine_threadsafe(self._bounded(work), self._open())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def post(self, body: Mapping[str, Any], deadline: float) -> Any:
        """The JSON of the answer. Raises EndpointError, TooLarge when a smaller body may help."""
        payload = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        for attempt in itertools.count():
            try:
                return await self._once(payload)
            except _Passing as trouble:
                sentence = str(trouble)
                wait = trouble.wait_seconds
            if wait is None:
                wait = _back_off(attempt)
            tries = "once" if attempt == 0 else f"{attempt + 1} times"
            if attempt >= self._max_retries:
                raise EndpointError(f"{sentence} It was tried {tries}.")
            if time.monotonic() + wait >= deadline:
                raise EndpointError(
                    f"{sentence} Trying again in {wait:.1f} s would exceed the "
                    f"{self._timeout_seconds:g} s allowed."
                )
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Closes the connections and ends the thread; the next call opens them again."""
        with self._opening:
            if self._process != os.getpid():
                return
            self._process = 0
            asyncio.run_coroutine_threadsafe(self._http.aclose(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _open(self) -> asyncio.AbstractEventLoop:
        with self._opening:
            # A fork copies this object, not its thread.
            if self._process != os.getpid():
                self._http = self._connections()
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=(self._loop,), name=f"http {self.host}", daemon=True
                ).start()
                self._process = os.getpid()
            return self._loop

    def _connections(self) -> httpx2.AsyncClient:
        headers = {"content-type": "application/json", "user-agent": "podium", **self._headers}
        if self._key and self._key_header:
            headers[self._key_header] = self._key
        elif self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return httpx2.AsyncClient(
            headers=headers,
            timeout=self._timeouts,
            verify=True,
            follow_redirects=False,
            trust_env=False,
        )

    async def _bounded(self, work: Callable[[float], Awaitable[Result]]) -> Result:
        deadline = time.monotonic() + self._timeout_seconds
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await work(deadline)
        except TimeoutError:
            raise EndpointError(
                f"{self._who} did not answer within {self._timeout_seconds:g} s."
            ) from None

    async def _once(self, payload: bytes) -> Any:
        try:
            async with self._http.stream("POST", self._url, content=payload) as response:
                content = await self._content(response)
        except httpx2.TimeoutException as error:
            kind = "connect" if isinstance(error, httpx2.ConnectTimeout) else "answer"
            raise _Passing(f"{self._who} did not {kind} in time.") from error
        except httpx2.TransportError as error:
            if _is_untrusted(error):
                raise EndpointError(
                    f"{self._who} has a certificate that is not trusted."
                ) from error
            raise _Passing(f"{self._who} cannot be reached: {self._reason(error)}.") from error
        except httpx2.RequestError as error:
            raise EndpointError(
                f"{self._who} gave an unreadable answer: {self._reason(error)}."
            ) from error
        if not response.is_success:
            raise self._refusal(response, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise EndpointError(f"{self._who} answered with something that is not JSON.") from error

    async def _content(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > self._max_answer_bytes:
                raise EndpointError(
                    f"{self._who} answers with more than {self._max_answer_bytes:,} bytes."
                )
        return bytes(content)

    def _refusal(self, response: httpx2.Response, content: bytes) -> Exception:
        """What an answer without success means: a _Passing, or the EndpointError to raise."""
        status = response.status_code
        detail = self._redacted(error_detail(content))
        sentence = f"{self._who} answered {status}" + (f": {detail}" if detail else "")
        if not sentence.endswith((".", "!", "?")):
            sentence += "."
        wish = response.headers.get("x-should-retry", "")
        if wish != "false" and (wish == "true" or status in RETRIED or status >= 500):
            return _Passing(sentence, _asked_wait(response.headers))
        if status == 413:
            return TooLarge(sentence)
        return EndpointError(f"{sentence} {self._advice(response)}".strip())

    def _advice(self, response: httpx2.Response) -> str:
        status = response.status_code
        if 300 <= status < 400:
            target = urlsplit(response.headers.get("location", ""))
            place = f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else ""
            where = f" to {place[:LONGEST_DETAIL]}" if place else ""
            return f"It redirects{where}, which is not followed: name the final address as url."
        if status in {401, 403, 498}:
            if self._key_name:
                return f"Check the key in the environment variable {self._key_name}."
            return "It wants a key: name the environment variable that holds it as key_env."
        if status in {404, 405}:
            return "Check url and model."
        return ""

    def _reason(self, error: Exception) -> str:
        return self._redacted(str(error) or type(error).__name__).rstrip(".")

    def _redacted(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "…")
        text = " ".join(text.split())
        return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "…"


def key_from_environment(name: str) -> str:
    """The key in the environment variable `name`; "" for no name. Raises BadRecipe, which never
    repeats the value."""
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise BadRecipe(f"The environment variable {name} is not set: it should hold the key.")
    if not key.isascii() or not key.isprintable():
        raise BadRecipe(f"The environment variable {name} holds signs that no key can have.")
    return key


def error_detail(content: bytes) -> str:
    """What an error answer says, in any of the usual shapes; its first words when it is
    neither JSON nor a page."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        text = content[: 4 * LONGEST_DETAIL].decode(errors="replace").strip()
        return "" if text.startswith("<") else text
    # The sentence may lie within: [{"msg": …}], {"error": {"message": …}}.
    while not isinstance(said, str):
        if isinstance(said, list) and said:
            said = said[0]
        elif isinstance(said, Mapping):
            said = next((said[key] for key in DETAIL_KEYS if said.get(key)), "")
        else:
            return ""
    return said


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether a certificate did not verify, which the libraries wrap in errors of their own."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _back_off(attempt: int) -> float:
    """Seconds before the next attempt: doubling from 0.5 to 8, less up to a quarter by chance."""
    full = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0**attempt)
    return full * (1.0 - 0.25 * random.random())


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds by `retry-after-ms` or `retry-after` (seconds or a date); None when not asked for."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif "retry-after" not in headers:
            return None
        elif headers["retry-after"].strip().replace(".", "", 1).isdigit():
            seconds = float(headers["retry-after"])
        else:
            date = email.utils.parsedate_to_datetime(headers["retry-after"])
            seconds = date.timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()
