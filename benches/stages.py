"""The seconds that each stage of a long command took, told and kept in a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stages:
    """`file`: JSON of stage -> seconds. A stage done again finds what it made the first time, so
    its longest time is kept; delete the file to measure anew."""

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
        self.note(stage, time.perf_counter() - started)

    def note(self, stage: str, seconds: float) -> None:
        sys.stdout.write(f"{stage}: {seconds:,.0f} s\n")
        sys.stdout.flush()
        self._seconds[stage] = max(self._seconds.get(stage, 0.0), round(seconds, 1))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._seconds, indent=1, ensure_ascii=False)
        beside = self._file.with_name(self._file.name + ".new")
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(self._file)
