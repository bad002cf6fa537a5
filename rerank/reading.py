"""Text files and JSON lines, with the number of each line for whoever has to mend it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rerank.errors import BadInput


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a UTF-8 file, plain or .gz; blank lines left out.

    Raises BadInput.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} cannot be read: it is not UTF-8 text. Save it as UTF-8 and try again."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path} cannot be read: {reason}.") from error


def json_rows(path: Path, needed: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl[.gz] file, each with the fields `needed`. Raises BadInput."""
    for _, row in numbered_json_rows(path, needed):
        yield row


def numbered_json_rows(
    path: Path, needed: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `json_rows`, each with the number of its line."""
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"Line {number} of {path} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise BadInput(f"Line {number} of {path} is no JSON object.")
        missing = [name for name in needed if name not in row]
        if missing:
            raise BadInput(f"Line {number} of {path} has no {' and no '.join(missing)}.")
        yield number, row
