"""Which texts go through the model together. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def plan_batches(
    lengths: Sequence[int], max_tokens: int, max_items: int = 1024
) -> Iterator[list[int]]:
    """Places 0..n-1 in batches, longest first, so that padding is small and the first batch needs
    the most memory.

    A batch of m texts costs m x its longest length, held to `max_tokens`; a text longer than that
    goes alone. Lengths are in tokens. Equal lengths keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batch: list[int] = []
    for place in order:
        longest = lengths[batch[0]] if batch else 0
        if batch and (len(batch) >= max_items or (len(batch) + 1) * longest > max_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def run_in_batches(
    lengths: Sequence[int],
    compute: Callable[[list[int]], NDArray[Any]],
    width: int,
    max_tokens: int,
    is_memory_error: Callable[[BaseException], bool],
    max_items: int = 1024,
) -> NDArray[np.float32]:
    """`compute` over all batches, its rows put back in the order of the texts, shape (n, width).

    `compute` takes places and returns one row each. A batch that runs out of memory is halved and
    tried again; a single text that does so raises what `compute` raised.
    """
    rows = np.zeros((len(lengths), width), dtype=np.float32)
    waiting = list(plan_batches(lengths, max_tokens, max_items))[::-1]
    while waiting:
        batch = waiting.pop()
        try:
            rows[batch] = compute(batch)
        except Exception as error:
            if len(batch) == 1 or not is_memory_error(error):
                raise
            middle = len(batch) // 2
            waiting += [batch[middle:], batch[:middle]]
    return rows
