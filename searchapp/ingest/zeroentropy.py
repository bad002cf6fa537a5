"""Reading the collections of a server that speaks the ZeroEntropy contract."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from rerank.remote.client import error_detail

# As the contract's own clients do, but longer: a copy of hours must not end with a busy minute.
RETRIED = {408, 409, 429}
MAX_TRIES = 8
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 8.0
# A server that asks for more than this is waited for as if it had not said.
LONGEST_ASKED_SECONDS = 60.0
LISTED_AT_ONCE = 1024
MAX_SHOWN = 300


class SourceFailed(Exception):
    """The server did not answer, or refused; the message is a sentence. `status` 0: no answer."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Listed:
    """One document of a list. `index_status` as the contract names it."""

    path: str
    index_status: str
    pages: int | None
    metadata: Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Content:
    """`pages` None: a text without pages."""

    text: str
    pages: Sequence[str] | None = None


class Source:
    """The server at `base_url` (with its /v1). May be used by several threads at once.

    Every method raises SourceFailed. Failures that may pass (408, 409, 429, 5xx, broken
    connections) are tried MAX_TRIES times, as `x-should-retry`, `retry-after-ms` and `retry-after`
    say, else after waits that double. No redirect is followed, and no proxy or password is taken
    from the environment. The key stands in no message.
    """

    def __init__(
        self, base_url: str, key: str, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise SourceFailed(f"{base_url!r} is no address: it begins with http:// or https://.")
        self._base = base_url.rstrip("/")
        self._key = key
        self._pause = pause
        self._http = httpx2.Client(
            headers={"authorization": f"Bearer {key}", "user-agent": "podium"},
            timeout=httpx2.Timeout(60.0, connect=5.0),
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def collections(self) -> list[str]:
        found = self._post("collections/get-collection-list", {})
        return [str(name) for name in _list(found, "collection_names")]

    def count(self, collection: str) -> int:
        """How many documents there are, failed ones too."""
        found = self._post("status/get-status", {"collection_name": collection})
        return int(found.get("num_documents") or 0)

    def documents(self, collection: str) -> Iterator[list[Listed]]:
        """All of them in the order of the bytes of their paths, some at a time."""
        asked: dict[str, Any] = {"collection_name": collection, "limit": LISTED_AT_ONCE}
        while True:
            found = self._post("documents/get-document-info-list", asked)
            rows = [_listed(row) for row in _list(found, "documents")]
            if not rows:
                return
            yield rows
            last = rows[-1].path
            if last == asked.get("path_gt"):
                raise SourceFailed("The server gives the same page of its list again and again.")
            asked["path_gt"] = last

    def content(self, collection: str, document: Listed) -> Content:
        """The text of a document that has been read there, page by page where it has pages."""
        named = {"collection_name": collection, "path": document.path, "include_content": True}
        if document.pages is None:
            found = self._post("documents/get-document-info", named).get("document")
            return Content(_content(found))
        pages = []
        for index in range(document.pages):
            answer = self._post("documents/get-page-info", {**named, "page_index": index})
            pages.append(_content(answer.get("page")))
        return Content("", pages)

    def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        for tries in range(1, MAX_TRIES + 1):
            wait: float | None = None
            try:
                answer = self._http.post(f"{self._base}/{path}", json=dict(body))
            except httpx2.TransportError as error:
                failure = SourceFailed(f"{self._base} cannot be reached: {self._said(error)}.")
            except httpx2.HTTPError as error:
                raise SourceFailed(
                    f"{self._base} answers unreadably: {self._said(error)}."
                ) from error
            else:
                if answer.is_success:
                    return self._json(answer)
                failure = self._refusal(path, answer)
                if not _may_pass(answer):
                    raise failure
                wait = _asked_wait(answer.headers)
            if tries < MAX_TRIES:
                self._pause(_back_off(tries) if wait is None else wait)
        raise SourceFailed(f"{failure} It was tried {MAX_TRIES} times.", failure.status)

    def _json(self, answer: httpx2.Response) -> Mapping[str, Any]:
        try:
            found = answer.json()
        except (ValueError, RecursionError) as error:
            raise SourceFailed(f"{self._base} answers with something that is not JSON.") from error
        if not isinstance(found, dict):
            raise SourceFailed(f"{self._base} does not speak the contract.")
        return found

    def _refusal(self, path: str, answer: httpx2.Response) -> SourceFailed:
        status = answer.status_code
        detail = self._redacted(error_detail(answer.content))
        sentence = f"{self._base}/{path} answered {status}" + (f": {detail}" if detail else "")
        if not sentence.endswith((".", "!", "?")):
            sentence += "."
        if status in {401, 403}:
            sentence += " Check the key: it must be allowed to read."
        elif 300 <= status < 400:
            sentence += " It redirects, which is not followed: name the final address, /v1 too."
        return SourceFailed(sentence, status)

    def _said(self, error: Exception) -> str:
        return self._redacted(str(error) or type(error).__name__).rstrip(".")

    def _redacted(self, text: str) -> str:
        return " ".join((text.replace(self._key, "…") if self._key else text).split())[:MAX_SHOWN]


def _may_pass(answer: httpx2.Response) -> bool:
    wish = answer.headers.get("x-should-retry", "")
    if wish in {"true", "false"}:
        return bool(wish == "true")
    return answer.status_code in RETRIED or answer.status_code >= 500


def _back_off(tries: int) -> float:
    full = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (tries - 1))
    return full * (1.0 - 0.25 * random.random())


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds, by `retry-after-ms` or `retry-after` (seconds or a date)."""
    said = headers.get("retry-after", "")
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif said.strip().replace(".", "", 1).isdigit():
            seconds = float(said)
        else:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= LONGEST_ASKED_SECONDS else None


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    rows = found.get(name)
    if not isinstance(rows, list):
        raise SourceFailed(
            f"The server's answer has no list “{name}”: it does not speak the contract."
        )
    return rows


def _listed(row: Any) -> Listed:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise SourceFailed("The server lists a document without a path.")
    metadata = row.get("metadata")
    pages = row.get("num_pages")
    return Listed(
        path=row["path"],
        index_status=str(row.get("index_status") or ""),
        pages=pages if isinstance(pages, int) else None,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _content(found: Any) -> str:
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, str):
        raise SourceFailed("The server gives no text for it.", 404)
    return content
