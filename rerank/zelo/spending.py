"""What judging costs: prices, a ledger that outlives a run, and the budget that ends it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rerank.errors import BadStage, JudgingStopped

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
        self._path = path
        self.total = 0.0
        if path is not None and path.exists():
            self._read(path)

    def add(self, judge: str, cost: float) -> None:
        """Writes it down before it returns. Raises BadStage when it cannot be written."""
        if not cost:
            return
        self.total += cost
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"judge": judge, "cost": cost}, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BadStage(
                f"{self._path.name} cannot be written: {error.strerror or error}. What was "
                "answered is kept."
            ) from error

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

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadStage(f"{path} cannot be read: {error.strerror or error}.") from error
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                cost = float(json.loads(line)["cost"])
                if not 0.0 <= cost < float("inf"):
                    raise ValueError(cost)
            except (KeyError, TypeError, ValueError) as error:
                raise BadStage(
                    f"Line {number} of {path} is no cost of judging: take the line out, or the "
                    "file away to count from nothing."
                ) from error
            self.total += cost


def money(value: float) -> str:
    """Two decimals; below 1 two more, where they are not 0."""
    if value >= 1:
        return f"{value:.2f}"
    text = f"{value:.4f}"
    return text[:-2] + text[-2:].rstrip("0")
