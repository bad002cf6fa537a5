"""What judging costs: prices, a ledger that outlives a run, and the budget that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import JudgingStopped

from .growing_file import GrowingFile

# The ledger's name, in the directory of a run or beside the answers of a stage run by itself.
SPENDING = "spending.jsonl"


@dataclass(frozen=True)
class Price:
    """In one currency, per million tokens; `output_tokens`: what one answer is expected to take."""

    input_per_million: float
    output_per_million: float
    output_tokens: int = 400

    def of(self, input_tokens: float, output_tokens: float) -> float:
        spent = input_tokens * self.input_per_million + output_tokens * self.output_per_million
        return spent / 1_000_000


class Spending:
    """Costs as they came, those of failed calls too: one JSON object a line, `{"judge", "cost"}`.
    A line that a kill cut off is dropped when the ledger is opened again.

    One process writes at a time. `path` None keeps the sum in memory only. Raises BadStage for a
    file that is no ledger.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.total = 0.0
        self._file = None
        if path is not None:
            self._file = GrowingFile(
                path, "cost of judging", "count from nothing", "What was answered is kept."
            )
            self._file.read(self._count)

    def add(self, judge: str, cost: float) -> None:
        """Writes it down before it returns. Raises BadStage when it cannot be written."""
        if not cost:
            return
        self.total += cost
        if self._file is not None:
            self._file.append([{"judge": judge, "cost": cost}])

    def check_estimate(self, expected: Mapping[str, float], budget: float | None) -> None:
        """Raises JudgingStopped where `expected`, judge -> cost, would pass the budget."""
        total = sum(expected.values())
        if budget is None or not total or self.total + total <= budget:
            return
        each = ", ".join(f"{name} {money(cost)}" for name, cost in expected.items() if cost)
        before = f", beside the {money(self.total)} spent before" if self.total else ""
        raise JudgingStopped(
            f"Judging would cost about {money(total)} ({each}){before}, more than the "
            f"{money(budget)} allowed: allow more, or compare fewer pairs. Nothing was asked."
        )

    def check(self, budget: float | None) -> None:
        """Raises JudgingStopped where more was spent than the budget."""
        if budget is not None and self.total > budget:
            raise JudgingStopped(
                f"Judging has cost {money(self.total)} by the judges' own counts, more than the "
                f"{money(budget)} allowed. What was answered is kept; allow more to go on."
            )

    def _count(self, said: Any) -> None:
        cost = float(said["cost"])
        if not 0.0 <= cost < float("inf"):
            raise ValueError(cost)
        self.total += cost


def money(value: float) -> str:
    """Two decimals; below 1 two more, where they are not 0."""
    if value >= 1:
        return f"{value:.2f}"
    text = f"{value:.4f}"
    return text[:-2] + text[-2:].rstrip("0")
