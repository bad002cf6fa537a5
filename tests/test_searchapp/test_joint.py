"""Threads that write at the same moment write together, and none pays for another's mistake."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from searchapp.ingest import embedding, queueing
from searchapp.ingest.joint import Joint

THREADS = 12


class Ledger:
    """Writes numbers; the first write waits until everybody else has come."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.others_wait = threading.Event()

    def write(self, items: Sequence[int]) -> list[str]:
        if not self.batches:
            assert self.others_wait.wait(20)
        self.batches.append(list(items))
        if any(item < 0 for item in items):
            raise ValueError(f"{min(items)} is no number of ours")
        return [f"wrote {item}" for item in items]

    def run(self, joint: Joint[int, str], items: Sequence[int]) -> list[str]:
        """One thread for each item; all but one come while that one writes."""

        def ask(item: int) -> str:
            try:
                return joint.do("room", item)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(len(items)) as pool:
            first = pool.submit(ask, items[0])
            rest = [pool.submit(ask, item) for item in items[1:]]
            while sum(len(room.waiting) for room in joint._rooms.values()) < len(rest):
                assert not first.done()
            self.others_wait.set()
            return [each.result(20) for each in [first, *rest]]


def test_whoever_waits_is_written_with_the_next() -> None:
    ledger = Ledger()
    joint = Joint(ledger.write, mark=lambda item: item)
    assert ledger.run(joint, range(THREADS)) == [f"wrote {item}" for item in range(THREADS)]
    assert [len(batch) for batch in ledger.batches] == [1, THREADS - 1]
    assert not joint._rooms  # nothing is kept of who has left


def test_at_most_so_many_are_written_at_once() -> None:
    ledger = Ledger()
    ledger.run(Joint(ledger.write, mark=lambda item: item, most=4), range(THREADS))
    assert [len(batch) for batch in ledger.batches] == [1, 4, 4, 3]


def test_a_bad_item_fails_alone() -> None:
    ledger = Ledger()
    joint = Joint(ledger.write, mark=lambda item: item)
    answers = ledger.run(joint, [0, 1, -7, 2, 3])
    assert answers == ["wrote 0", "wrote 1", "-7 is no number of ours", "wrote 2", "wrote 3"]


def test_what_has_the_same_mark_is_written_in_turn() -> None:
    ledger = Ledger()
    joint = Joint(ledger.write, mark=lambda item: item % 3)
    ledger.run(joint, range(10))
    for batch in ledger.batches:
        assert len({item % 3 for item in batch}) == len(batch)
    assert sorted(item for batch in ledger.batches for item in batch) == list(range(10))


def test_one_message_asks_for_the_vectors_of_many_commits(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks, db: None
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(queueing, "_send", lambda name, args, queue: sent.append(name))

    def commit() -> None:
        with django_capture_on_commit_callbacks(execute=True):
            queueing.kick_embedding()

    queueing.embedding_begins()
    commit()
    commit()
    assert sent == [queueing.EMBED_TASK]
    embedding.pump()  # takes the message up
    commit()
    assert sent == [queueing.EMBED_TASK] * 2
