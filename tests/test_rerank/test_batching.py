"""Batches: complete, within budget, in order again, halved when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.inference.batching import plan_batches, run_in_batches

lengths_strategy = st.lists(st.integers(0, 50), max_size=40)


@given(lengths_strategy, st.integers(1, 120), st.integers(1, 8))
def test_every_text_is_in_one_batch_and_batches_keep_the_budget(
    lengths: list[int], budget: int, most: int
) -> None:
    batches = list(plan_batches(lengths, budget, most))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget


def test_longest_first() -> None:
    assert list(plan_batches([3, 9, 5, 9], 18)) == [[1, 3], [2, 0]]


@given(lengths_strategy, st.integers(1, 120))
def test_rows_come_back_in_order(lengths: list[int], budget: int) -> None:
    rows = run_in_batches(
        lengths,
        lambda places: np.array([[place, lengths[place]] for place in places], dtype=np.float32),
        2,
        budget,
        lambda error: False,
    )
    assert rows.tolist() == [[place, length] for place, length in enumerate(lengths)]


def test_a_batch_that_runs_out_of_memory_is_halved() -> None:
    sizes: list[int] = []

    def compute(places: list[int]) -> np.ndarray:
        if len(places) > 2:
            raise MemoryError
        sizes.append(len(places))
        return np.array([[place] for place in places], dtype=np.float32)

    rows = run_in_batches([1] * 9, compute, 1, 100, lambda e: isinstance(e, MemoryError))
    assert rows[:, 0].tolist() == list(range(9))
    assert max(sizes) == 2


def test_one_text_that_runs_out_of_memory_and_other_errors_are_raised() -> None:
    def fail(places: list[int]) -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        run_in_batches([1], fail, 1, 100, lambda e: True)
    with pytest.raises(MemoryError):
        run_in_batches([1, 1], fail, 1, 100, lambda e: False)
