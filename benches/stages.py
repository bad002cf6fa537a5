"""The seconds that each stage of a long command took, told and kept in a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stages:
    """`file`: JSON of stage -> seconds; a stage done again replaces its own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seconds: dict[str, float] = (
            json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        )

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """What fails or is stopped within leaves no time."""
        started = time.perf_counter()
        yield
        self._seconds[stage] = round(time.perf_counter() - started, 1)
        sys.stdout.write(f"{stage}: {self._seconds[stage]:,.0f} s\n")
        sys.stdout.flush()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._seconds, indent=1, ensure_ascii=False)
        self._file.write_text(text + "\n", encoding="utf-8")
