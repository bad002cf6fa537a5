"""A file of JSON lines that only grows, and survives a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rerank.errors import BadStage


class GrowingFile:
    """One JSON object a line. A line that a kill cut off is dropped when the file is read again.

    One process writes at a time. `what`: of a line, for the sentence on one that is something else;
    `otherwise`: what taking the whole file away would do; `kept`: what stands when it cannot be
    written.
    """

    def __init__(self, path: Path, what: str, otherwise: str, kept: str) -> None:
        self.path, self._what, self._otherwise, self._kept = path, what, otherwise, kept

    def read(self, keep: Callable[[Any], object]) -> None:
        """Hands each line's object to `keep`, whose KeyError, TypeError or ValueError says that it
        is none. Raises BadStage for such a line and for a file that cannot be read."""
        if not self.path.exists():
            return
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise BadStage(f"{self.path} cannot be read: {error.strerror or error}.") from error
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                keep(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise BadStage(
                    f"Line {number} of {self.path} is no {self._what}: take the line out, or the "
                    f"file away to {self._otherwise}."
                ) from error

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """On disk before it returns. Raises BadStage when they cannot be written."""
        lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BadStage(
                f"{self.path.name} cannot be written: {error.strerror or error}. {self._kept}"
            ) from error
