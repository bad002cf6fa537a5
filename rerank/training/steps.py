"""One step's examples -> gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rerank.errors import BadInput, TrainingFailed
from rerank.inference.devices import is_memory_error

from . import losses
from .bases import Trainable, TrainingRow, casting
from .examples import Example, TrainingList
from .order import chosen_documents, dealt, is_turned, micro_batches
from .settings import Settings


@dataclass(frozen=True)
class Unit:
    """What is read of one example this epoch: a list's documents, or a pair. `share`: what it adds
    to the number that the step's loss is divided by."""

    example: Example
    documents: tuple[int, ...]
    is_turned: bool
    share: float
    length: int


def unit_of(example: Example, settings: Settings, epoch: int, place: int) -> Unit:
    """`place` of the example among all. Depends on the seed, the epoch and the place alone."""
    if not isinstance(example, TrainingList):
        turned = settings.swap_pairs and is_turned(settings.seed, epoch, place)
        return Unit(example, (), turned, example.weight, rough_length(example))
    chosen = chosen_documents(
        len(example.documents), settings.documents_per_list, settings.seed, epoch, place
    )
    if settings.loss == "listwise":
        share = float(sum(example.targets[document] for document in chosen) > 0)
    else:
        share = float(len(chosen))
    length = sum(
        len(example.query) + len(example.instruction) + len(example.documents[document])
        for document in chosen
    )
    return Unit(example, tuple(chosen), False, share, length)


def rough_length(example: Example) -> int:
    """Characters of an example, by which those of about one length are put together."""
    fixed = len(example.query) + len(example.instruction)
    if isinstance(example, TrainingList):
        return sum(fixed + len(text) for text in example.documents)
    return fixed + len(example.a) + len(example.b)


class StepReader:
    """Reads this process's share of a step and leaves its gradients in the weights.

    `tokens` of a micro-batch; halved when memory runs out. `unreadable`: examples whose query left
    documents no room, which are left out.
    """

    def __init__(self, base: Trainable, settings: Settings) -> None:
        self._base = base
        self._settings = settings
        self.tokens = settings.micro_batch_tokens
        self.unreadable = 0

    def read(self, units: Sequence[Unit], rank: int = 0, processes: int = 1) -> tuple[float, int]:
        """The loss's share and the number of rows read here. The loss, and the gradient, is the
        mean over what the whole step holds, so the processes' shares add up to it.

        Raises TrainingFailed when the memory does not hold the smallest batch.
        """
        self._base.module.zero_grad(set_to_none=True)
        total = sum(unit.share for unit in units)
        places = dealt([unit.length for unit in units], rank, processes)
        rows, targets, weights, lists = self._rows([units[place] for place in places])
        if not rows or total <= 0:
            return 0.0, 0
        while True:
            try:
                return self._gradients(rows, targets, weights, lists, total), len(rows)
            except Exception as error:
                if not is_memory_error(error):
                    raise
                self._smaller(max(len(row.ids) for row in rows), error)

    def _rows(
        self, units: Sequence[Unit]
    ) -> tuple[list[TrainingRow], list[float], list[float], list[slice]]:
        rows: list[TrainingRow] = []
        targets: list[float] = []
        weights: list[float] = []
        lists: list[slice] = []
        for unit in units:
            try:
                found, wanted = rows_of(self._base, unit)
            except BadInput:
                self.unreadable += 1
                continue
            lists.append(slice(len(rows), len(rows) + len(found)))
            rows += found
            targets += wanted
            weights += [getattr(unit.example, "weight", 1.0)] * len(found)
        return rows, targets, weights, lists

    def _gradients(
        self,
        rows: Sequence[TrainingRow],
        targets: Sequence[float],
        weights: Sequence[float],
        lists: Sequence[slice],
        total: float,
    ) -> float:
        together = self._settings.loss == "listwise"
        lengths = [len(row.ids) for row in rows]
        batches = micro_batches([lengths[each] for each in lists], self.tokens, together)
        loss_sum = torch.zeros((), device=self._base.device)
        self._base.module.zero_grad(set_to_none=True)
        for batch in batches:
            with casting(self._base.device, self._settings.autocast):
                logits = self._base.logits([rows[place] for place in batch])
            device = logits.device
            wanted = torch.tensor([targets[place] for place in batch], device=device)
            counted = torch.tensor([weights[place] for place in batch], device=device)
            first = batch[0]
            parts = [
                slice(each.start - first, each.stop - first)
                for each in lists
                if together and first <= each.start < first + len(batch)
            ]
            loss = self._loss(logits.float(), wanted, counted, parts) / total
            torch.autograd.backward(loss)
            loss_sum += loss.detach()
        return float(loss_sum)

    def _loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        lists: Sequence[slice],
    ) -> torch.Tensor:
        temperature = self._base.temperature
        if self._settings.loss == "mse":
            return losses.mse(logits, targets, temperature)
        if self._settings.loss == "bce":
            return losses.bce(logits, targets, temperature)
        if self._settings.loss == "pair_bce":
            return losses.pair_bce(logits, targets, weights)
        found = [losses.listwise(logits[each], targets[each], temperature) for each in lists]
        return torch.stack(found).sum()

    def _smaller(self, longest: int, error: BaseException) -> None:
        """Raises TrainingFailed when the batch is one row already."""
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.tokens <= longest or self._settings.loss == "listwise":
            raise TrainingFailed(
                "The memory does not hold the smallest batch. Choose a smaller max_tokens, "
                "checkpointing, LoRA, or for the listwise loss fewer documents_per_list."
            ) from error
        self.tokens = max(self.tokens // 2, longest)


def rows_of(base: Trainable, unit: Unit) -> tuple[list[TrainingRow], list[float]]:
    """Rows and their targets. Raises BadInput."""
    example = unit.example
    if isinstance(example, TrainingList):
        priors = example.priors
        rows = base.rows(
            example.query,
            example.instruction,
            [example.documents[place] for place in unit.documents],
            None if priors is None else [priors[place] for place in unit.documents],
        )
        return rows, [example.targets[place] for place in unit.documents]
    if unit.is_turned:
        turned = base.pair_row(example.query, example.instruction, example.b, example.a)
        return [turned], [1.0 - example.preference]
    return [base.pair_row(example.query, example.instruction, example.a, example.b)], [
        example.preference
    ]
