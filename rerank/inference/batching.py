"""Which texts go through the model together. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank.errors import BadInput, DeviceError
from rerank.types import BatchReranker, FloatArray, RerankRequest, RerankScores

TOO_LARGE = (
    "The memory does not hold even one of the documents. Use a smaller model, a larger device, or "
    "shorter documents."
)


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


def score_now(model: BatchReranker, request: RerankRequest) -> RerankScores:
    """One request alone through the model, in this thread.

    Raises BadInput, and DeviceError when a single document is more than the memory holds.
    """
    prepared = model.prepare(request)
    started = time.perf_counter()
    try:
        raw = run_in_batches(
            prepared.lengths,
            lambda places: model.run([(prepared, place) for place in places])[:, None],
            1,
            model.budget,
            model.is_memory_error,
        )[:, 0]
    except Exception as error:
        if model.is_memory_error(error):
            raise DeviceError(TOO_LARGE) from error
        raise
    scores = model.finish(prepared, raw)
    elapsed_ms = (time.perf_counter() - started) * 1000
    return replace(scores, tokenize_ms=prepared.tokenize_ms, inference_ms=elapsed_ms)


def refuse_what_is_no_number(logits: FloatArray) -> None:
    """Raises BadInput: a score that is no number would be sorted anywhere."""
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    if bad:
        raise BadInput(
            f"The model gave something that is no number for {bad} of {len(logits)} documents."
        )
