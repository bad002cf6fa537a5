"""What happens in a run, one JSON object a line. No torch."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rerank.errors import TrainingFailed

FILE_NAME = "events.jsonl"
# One line of events.jsonl. `event` is one of: "started", "step", "validation", "skipped",
# "returned" (to the last good state), "cancelled", "done". All carry step, steps, seconds; "step":
# loss, lr, pairs_per_second, eta_seconds; "validation": metrics by name; "started" and "done":
# sentences.
Event = dict[str, Any]


class EventLog:
    """Appends to the directory's events.jsonl and hands the same to `on_event`.

    `writes`: False in all processes but the first. Steps after `step` that an earlier run wrote
    down are struck out, because they are run again.
    """

    def __init__(
        self, directory: Path, on_event: Callable[[Event], None], writes: bool, step: int
    ) -> None:
        self._path = directory / FILE_NAME
        self._on_event = on_event
        self._writes = writes
        if writes:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _full(directory, error) from error
        if writes and self._path.is_file():
            kept = [event for event in read_events(directory) if event["step"] <= step]
            self._replace(kept if step else [])

    def add(self, event: Event) -> None:
        """Raises TrainingFailed when the disk is full, and what `on_event` raises."""
        if not self._writes:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(event))
        except OSError as error:
            raise _full(self._path, error) from error
        self._on_event(event)

    def _replace(self, events: list[Event]) -> None:
        beside = self._path.with_suffix(".jsonl.part")
        try:
            beside.write_text("".join(map(_line, events)), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise _full(self._path, error) from error


def read_events(directory: Path) -> list[Event]:
    """In order; a last line that a kill cut off is left out."""
    events: list[Event] = []
    path = directory / FILE_NAME
    if not path.is_file():
        return events
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("step"), int):
            events.append(event)
    return events


def _line(event: Event) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"


def _full(path: Path, error: OSError) -> TrainingFailed:
    return TrainingFailed(
        f"{path.name} cannot be written: {os.strerror(error.errno or 0)}. Make room and start the "
        "same training again; it goes on from its last state."
    )
