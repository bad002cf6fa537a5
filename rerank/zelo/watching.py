"""What a run tells while it works: one event a step, with rate and time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Progress is told, and whether to stop is asked, this often; the last step is always told.
SECONDS_BETWEEN = 0.2

State = Literal["started", "progress", "training", "note", "done"]


@dataclass(frozen=True)
class Event:
    """`round` 0 is the first pass. `state` "started" and "done" frame a stage; "note": `sentence`
    for people; "training": `training` is an event of the training loop (loss, nDCG@10, ...).
    `done` of `total` `unit`s, `rate` a second, `eta_seconds` left of this stage; None when nobody
    can say. `kept`: a "done" stage that had nothing to do."""

    stage: str
    state: State
    round: int = 0
    done: int = 0
    total: int = 0
    unit: str = ""
    rate: float | None = None
    eta_seconds: float | None = None
    sentence: str = ""
    kept: bool = False
    training: Mapping[str, Any] | None = None


class Stopped(Exception):
    """The run was asked to stop; what is done is kept."""


class Watch:
    """Of one stage: turns its steps into events, and ends it when the run should stop."""

    def __init__(
        self,
        stage: str,
        round_number: int,
        on_event: Callable[[Event], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._stage, self._round = stage, round_number
        self._on_event, self.stopped = on_event, stopped
        self._unit, self._started, self._told = "", time.monotonic(), 0.0
        self._asked = 0.0

    def tell(self, state: State, **facts: Any) -> None:
        self._on_event(Event(self._stage, state, self._round, **facts))

    def step(self, unit: str, done: int, total: int) -> None:
        """Raises Stopped."""
        now = time.monotonic()
        # A stage may step ten thousand times a second, and asking may mean a query.
        if now - self._asked >= SECONDS_BETWEEN:
            self._asked = now
            if self.stopped():
                raise Stopped
        if unit != self._unit or done == 0:
            self._unit, self._started, self._told = unit, now, 0.0
        if now - self._told < SECONDS_BETWEEN and done < total:
            return
        self._told = now
        seconds = now - self._started
        rate = done / seconds if done and seconds > 0 else None
        eta = (total - done) / rate if rate else None
        self.tell("progress", done=done, total=total, unit=unit, rate=rate, eta_seconds=eta)

    def training_event(self, event: Mapping[str, Any]) -> None:
        self.tell(
            "training",
            done=int(event.get("step") or 0),
            total=int(event.get("steps") or 0),
            unit="steps",
            rate=event.get("pairs_per_second"),
            eta_seconds=event.get("eta_seconds"),
            training=event,
        )
