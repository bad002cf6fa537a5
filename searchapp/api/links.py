"""Addresses of files and page images that work without a key: signed, for a limited time, and gone
with the document they are of."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.urls import reverse

DOCUMENT, PAGE_IMAGE = "v1/get-document", "v1/get-page-image"
_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Links:
    """`base`: where this server is reached, such as https://search.example.org"""

    base: str

    @classmethod
    def of(cls, request: HttpRequest) -> Links:
        return cls(f"{request.scheme}://{request.get_host()}")

    def document(self, uid: UUID) -> str:
        return self._signed(DOCUMENT, [uid.hex])

    def page_image(self, uid: UUID, index: int) -> str:
        return self._signed(PAGE_IMAGE, [uid.hex, index])

    def _signed(self, name: str, what: list[str | int]) -> str:
        token = urlencode({"token": signing.dumps(what, salt=name)})
        return f"{self.base}{reverse(name)}?{token}"


def read_token(name: str, token: str) -> tuple[UUID, int] | None:
    """(document, page from 0) of a token made for `name`; None for one that is not, or too old."""
    days = settings.API_FILE_URL_DAYS
    try:
        what = signing.loads(token, salt=name, max_age=days * _DAY_SECONDS if days else None)
    except signing.BadSignature:
        return None
    return UUID(what[0]), int(what[1]) if len(what) > 1 else 0
