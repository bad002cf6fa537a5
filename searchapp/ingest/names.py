"""The user's file names, made safe to store and show."""

from __future__ import annotations

import unicodedata

from .extract.encodings import clean

MAX_CHARACTERS = 900  # of 1024, so that "#row" still fits behind it


def safe_name(name: str) -> str:
    """Folders kept, but never absolute, never with "..", backslashes or control characters.

    A name too long loses its beginning, because its end tells the type. Never empty.
    """
    name = unicodedata.normalize("NFC", clean(name)).replace("\\", "/").replace("\n", " ")
    parts = [part.strip() for part in name.split("/")]
    if len(parts[0]) == 2 and parts[0][1] == ":":
        parts = parts[1:]
    kept = [part for part in parts if part not in {"", ".", ".."}]
    return "/".join(kept)[-MAX_CHARACTERS:].lstrip("/") or "unnamed"
