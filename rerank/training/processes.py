"""Several processes train as one: torchrun starts them, each reads its share of a step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")
# Bytes of gradients that travel together.
_BUCKET = 64 << 20


class Processes:
    """What torchrun's environment says: this process is `rank` of `count`, 0 of 1 without it.

    Gradients, losses and decisions are added up, so that all processes take the same steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._device = device
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def is_first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Over all processes, float64."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self._device)
        distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def any(self, flag: bool) -> bool:
        """Whether it holds in one of them."""
        return self.sum([float(flag)])[0] > 0

    def gathered(self, value: Value) -> list[Value]:
        """Every process's value, by rank."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    def share_weights(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """All begin with the first one's."""
        if self.count > 1:
            for weight in weights:
                distributed.broadcast(weight.data, 0)

    def sum_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """In place; a process that read nothing adds zeros."""
        if self.count == 1:
            return
        bucket: list[torch.Tensor] = []
        size = 0
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            if bucket and (size > _BUCKET or bucket[0].dtype != weight.grad.dtype):
                _sum(bucket)
                bucket, size = [], 0
            bucket.append(weight.grad)
            size += weight.grad.numel() * weight.grad.element_size()
        if bucket:
            _sum(bucket)


def take_own_gpu() -> None:
    """Before a base is opened: each process of a machine gets a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def _sum(bucket: Sequence[torch.Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    distributed.all_reduce(flat)
    start = 0
    for gradient in bucket:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
