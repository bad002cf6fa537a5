"""What a document's metadata may be: texts, and lists of texts under names that begin `list:`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..refusals import Refusal

MAX_BYTES = 65_536
LIST_PREFIX = "list:"

Metadata = dict[str, str | list[str]]
_NAME = re.compile(r"(list:)?[\w-]{1,200}")


def refused_metadata(metadata: Mapping[str, str | list[str]]) -> Refusal | None:
    """400 with what is wrong, or None."""
    for name, value in metadata.items():
        if _NAME.fullmatch(name) is None:
            return _bad(f"“{name[:100]}” is no name: use letters, digits, “-” and “_”.")
        is_list = isinstance(value, list)
        if is_list != name.startswith(LIST_PREFIX):
            kind = "begin with" if is_list else "be a list, as it begins with"
            return _bad(f"“{name[:100]}” must {kind} “{LIST_PREFIX}”.")
        if any("\0" in each for each in (value if isinstance(value, list) else [value])):
            return _bad(f"“{name[:100]}” holds a null character.")
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    if size >= MAX_BYTES:
        return _bad(f"It has {size:,} bytes as JSON; it must have fewer than {MAX_BYTES:,}.")
    return None


def _bad(sentence: str) -> Refusal:
    return Refusal(400, "bad-metadata", f"The metadata cannot be taken: {sentence}")
