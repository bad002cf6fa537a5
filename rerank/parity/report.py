"""What the parity gate found, for people and for machines. No torch, no models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rerank.types import ModelCard

Figure = float | int | str | None
_VERDICTS = {True: "ok", False: "FAILED", None: "n.a."}


@dataclass(frozen=True)
class Check:
    """One property. `passed` None: not applicable, and `sentence` says why.

    `figures`: what was measured; `limit`: what the first figure is held against, None where there
    is nothing to hold it against. `sentence` reads by itself.
    """

    name: str
    passed: bool | None
    sentence: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    limit: float | None = None


@dataclass(frozen=True)
class Side:
    """One of the two models held against each other: what its card says."""

    name: str
    device: str
    dtype: str
    revision: str

    @classmethod
    def of(cls, card: ModelCard) -> Side:
        return cls(card.name, card.device, card.dtype, card.revision)

    def __str__(self) -> str:
        return f"{self.name} ({self.device}, {self.dtype})"


@dataclass(frozen=True)
class ParityReport:
    """`reference` None: the candidate was held against itself only."""

    candidate: Side
    reference: Side | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed and at least one applied."""
        verdicts = [check.passed for check in self.checks]
        return False not in verdicts and True in verdicts

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for json.dumps; a figure that is no finite number becomes None."""
        return {
            "candidate": vars(self.candidate).copy(),
            "reference": vars(self.reference).copy() if self.reference else None,
            "passed": self.passed,
            "checks": [_plain(check) for check in self.checks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ParityReport:
        """What `as_json` gave. Raises ValueError for anything else."""
        try:
            reference = data["reference"]
            return cls(
                candidate=Side(**data["candidate"]),
                reference=Side(**reference) if reference else None,
                checks=tuple(Check(**check) for check in data["checks"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"This is no parity report: {error}.") from error

    def as_text(self) -> str:
        """A line per check under a heading, and the verdict at the end."""
        heading = f"{self.candidate}"
        if self.reference is not None:
            heading += f" against {self.reference}"
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [
            f"{_VERDICTS[check.passed]:<6}  {check.name:<{width}}  {check.sentence}"
            for check in self.checks
        ]
        return "\n".join([heading, "", *lines, "", self._verdict()])

    def _verdict(self) -> str:
        failed = len(self.failures)
        applied = sum(check.passed is not None for check in self.checks)
        if not applied:
            return "Not passed: none of the checks applies."
        if failed:
            names = ", ".join(check.name for check in self.failures)
            return f"Not passed: {failed} of {applied} checks failed ({names})."
        return f"Passed: all {applied} checks that apply."


def _plain(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "passed": check.passed,
        "sentence": check.sentence,
        "figures": {name: _finite(value) for name, value in check.figures.items()},
        "limit": _finite(check.limit),
    }


def _finite(value: Figure) -> Figure:
    return None if isinstance(value, float) and not math.isfinite(value) else value
