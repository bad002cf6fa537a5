"""Which texts can be scored, and how much of a long one has to be read. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rerank.errors import BadInput
from rerank.types import RerankRequest

# The first look at a long text reads this many characters per token there is room for.
FIRST_LOOK = 16
# A text that gives too few tokens for this many times the first look is no language (blanks, one
# endless word); the rest of it is not read.
LAST_LOOK = 64
# A cut may change the last tokens before it; so many behind the room are enough of a distance.
MARGIN = 16
# Where tokenizers divide: a space after anything but white space, a letter after a line break.
_BORDER = re.compile(r"(?<=\S)(?= )|(?<=\n)(?=[^\W\d_])")

# Texts -> ids of each, no special tokens, nothing cut.
Encode = Callable[[Sequence[str]], list[list[int]]]


def refuse_what_is_no_text(request: RerankRequest) -> None:
    """Raises BadInput that names the place of the first text that is no valid Unicode string."""
    named = [("The query", request.query), ("The instruction", request.instruction or "")]
    documents = ((f"Document {i}", text) for i, text in enumerate(request.documents, start=1))
    for name, text in [*named, *documents]:
        why = _why_no_text(text)
        if why:
            raise BadInput(f"{name} {why}")


def sendable(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which no UTF-8 can carry."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def first_ids(encode: Encode, texts: Sequence[str], room: int) -> list[tuple[list[int], bool]]:
    """At most the first `room` ids of each text, and whether that is less than the whole text.

    Of a long text only as many characters are tokenised as give enough ids.
    """
    look = room * FIRST_LOOK
    short = [place for place, text in enumerate(texts) if len(text) <= look]
    found: dict[int, tuple[list[int], bool]] = {}
    for place, ids in zip(short, encode([texts[place] for place in short]), strict=True):
        found[place] = (ids[:room], len(ids) > room)
    for place, text in enumerate(texts):
        if place not in found:
            beginning, ids = beginning_of(text, room, lambda part: encode([part])[0])
            found[place] = (ids[:room], len(ids) > room or len(beginning) < len(text))
    return [found[place] for place in range(len(texts))]


def beginning_of(
    text: str, room: int, encode: Callable[[str], Sequence[Any]]
) -> tuple[str, list[Any]]:
    """A beginning of `text` whose first `room` tokens are those of the whole text, and its tokens;
    the whole text where it is short. Of one endless word, which WordPiece gives up on as a whole,
    the beginning has tokens of its own."""
    look = room * FIRST_LOOK
    while look < len(text):
        part = text[: _last_border(text, look) or look]
        ids = list(encode(part))
        if len(ids) > room + MARGIN or look >= room * FIRST_LOOK * LAST_LOOK:
            return part, ids
        look *= 2
    return text, list(encode(text))


def _last_border(text: str, end: int) -> int | None:
    """The last border in the second half of the first `end` characters."""
    last = None
    for match in _BORDER.finditer(text, end // 2, end):
        last = match.start()
    return last


def _why_no_text(text: Any) -> str:
    if isinstance(text, bytes):
        return "is bytes, not text. Decode it with its own encoding and try again."
    if not isinstance(text, str):
        return f"is no text but {type(text).__name__}. Send a string."
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"is no valid Unicode text: character {error.start + 1} is half of a pair. Decode it "
            "with its own encoding and try again."
        )
    return ""
