"""A text under construction: blocks are added in order, headings and pages note their offsets."""

from __future__ import annotations

import re

from .encodings import clean
from .records import Heading, Unreadable

_SPACES = re.compile(r"[ \t\u00a0]+")
_TITLE_CHARACTERS = 500


class TextBuilder:
    """Collects blocks separated by one blank line. Raises Unreadable past `limit` characters."""

    def __init__(self, limit: int) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._limit = limit
        self.headings: list[Heading] = []
        self.page_starts: list[int] = []

    def __len__(self) -> int:
        return self._length

    def start_page(self) -> None:
        self.page_starts.append(self._length)

    def heading(self, level: int, title: str) -> None:
        title = one_line(title)
        if title:
            self.headings.append(Heading(self._length, level, title[:_TITLE_CHARACTERS]))
            self._add(title + "\n\n")

    def block(self, text: str) -> None:
        """A paragraph, list, table or code block; inner line breaks stay."""
        text = clean(text).strip("\n").rstrip()
        if text.strip():
            self._add(text + "\n\n")

    def line(self, text: str) -> None:
        """One line of a table or list; `block` or `heading` afterwards starts apart from it."""
        text = one_line(text)
        if text:
            self._add(text + "\n")

    def end_lines(self) -> None:
        if self._parts and not self._parts[-1].endswith("\n\n"):
            self._add("\n")

    def text(self) -> str:
        return "".join(self._parts)

    def _add(self, piece: str) -> None:
        self._length += len(piece)
        if self._length > self._limit:
            raise Unreadable(
                f"The text is longer than {self._limit:,} characters. Split it into several files."
            )
        self._parts.append(piece)


def one_line(text: str) -> str:
    """The text on one line with single spaces."""
    return _SPACES.sub(" ", " ".join(clean(text).split()))
