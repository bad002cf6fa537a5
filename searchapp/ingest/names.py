"""The user's file names, made safe to store and show."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from .extract.encodings import clean

# Sent as what they are; everything else is a stream of bytes. All of them are attachments.
SAFE_TYPES = {"application/pdf", "text/plain", "text/csv", "text/markdown", "application/json"}
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


def safe_file_name(name: str) -> str:
    """The last part of a name, without control characters, at most 150 characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]+", "", last).strip(" .")
    return cleaned[-150:] or "document"
