"""Writes that threads of one process ask for at the same moment, done as one.

A transaction costs a dozen round trips and one wait for the disk, whether it writes one small
document or twenty. So whoever comes while another writes waits, and the next to write takes all
who wait along (leader and followers, as group commit does in databases).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Wish(Generic[Item, Answer]):
    item: Item
    answer: Answer | None = None
    error: BaseException | None = None
    is_done: bool = False


class _Room(Generic[Item, Answer]):
    """Who waits for one key, and the lock of whoever writes for them."""

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self.waiting: list[_Wish[Item, Answer]] = []


@dataclass(frozen=True)
class Joint(Generic[Item, Answer]):
    """`write` gives one answer for each item, all in one transaction. When it raises, each of its
    items is written alone, so that one bad item fails nobody else. Items of the same `mark` are
    never written together; `most` bounds how many are."""

    write: Callable[[Sequence[Item]], Sequence[Answer]]
    mark: Callable[[Item], Hashable]
    most: int = 32
    _rooms: WeakValueDictionary[Hashable, _Room[Item, Answer]] = field(
        default_factory=WeakValueDictionary
    )
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def do(self, key: Hashable, item: Item) -> Answer:
        """Writes the item with others of the key that wait; raises what its own write raised."""
        wish: _Wish[Item, Answer] = _Wish(item)
        with self._opening:
            # Held by whoever is in it, gone when nobody is.
            room = self._rooms.setdefault(key, _Room())
            room.waiting.append(wish)
        with room.writing:
            while not wish.is_done:
                self._serve(self._taken(room))
        if wish.error is not None:
            raise wish.error
        return wish.answer  # type: ignore[return-value]  # done without an error

    def _taken(self, room: _Room[Item, Answer]) -> list[_Wish[Item, Answer]]:
        """The first of each mark, in the order of their coming."""
        taken: dict[Hashable, _Wish[Item, Answer]] = {}
        with self._opening:
            for wish in room.waiting:
                if len(taken) < self.most:
                    taken.setdefault(self.mark(wish.item), wish)
            chosen = list(taken.values())
            room.waiting = [wish for wish in room.waiting if wish not in chosen]
        return chosen

    def _serve(self, wishes: Sequence[_Wish[Item, Answer]]) -> None:
        try:
            answers = self.write([wish.item for wish in wishes])
            for wish, answer in zip(wishes, answers, strict=True):
                wish.answer = answer
        except Exception as error:
            if len(wishes) == 1:
                wishes[0].error = error
            else:
                for wish in wishes:
                    self._serve([wish])
        finally:
            for wish in wishes:
                wish.is_done = True
