"""How far a stage is: a bar for who sits at a terminal, and a call for any other watcher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
# (unit, done, total); what it raises ends the stage.
Watcher = Callable[[str, int, int], None]

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Stages run in here tell `watcher` of each step they make."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class Bar:
    """`total` steps of `unit`, told to the watcher and shown where somebody sits at a terminal."""

    def __init__(self, stage: str, unit: str, total: int) -> None:
        self._unit, self._total, self._done = unit, total, 0
        # disable=None: silent where nobody watches.
        self._bar: tqdm[Any] = tqdm(total=total, desc=stage, unit=f" {unit}", disable=None)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bar.close()

    def update(self, steps: int) -> None:
        self._done += steps
        self._bar.update(steps)
        if watcher := _watcher.get():
            watcher(self._unit, self._done, self._total)

    def move_to(self, done: int) -> None:
        """For who counts by itself."""
        self.update(done - self._done)


def with_bar(items: Iterable[T], stage: str, unit: str, total: int) -> Iterator[T]:
    """The items, each counted when it is done with."""
    with Bar(stage, unit, total) as bar:
        for item in items:
            yield item
            bar.update(1)
