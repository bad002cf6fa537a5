"""Judges that need no network: grades, people's own preferences, and any function."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rerank.errors import BadStage
from rerank.types import Qrels

from .judging import Comparison, Verdict
from .spending import Price

WINNERS = {"a": 1.0, "b": 0.0, "tie": 0.5}
# query and document of both sides
PairIds = tuple[str, str, str, str]


class Free:
    """A judge that costs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.price: Price | None = None

    def expected_tokens(self, comparison: Comparison) -> int:
        return 0


class LocalJudge(Free):
    """Any function of comparisons, such as a pairwise model on this machine: one P(a is better)
    each, in [0, 1]; None or anything else counts as failed."""

    def __init__(
        self, name: str, prefer: Callable[[Sequence[Comparison]], Sequence[float | None]]
    ) -> None:
        super().__init__(name)
        self._prefer = prefer

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [
            Verdict(None, f"{self.name} gave no preference.")
            if value is None
            else Verdict(float(value))
            for value in self._prefer(comparisons)
        ]


class QrelsJudge(Free):
    """The better grade wins, equal grades are a tie.

    `unjudged` documents count as grade 0 ("irrelevant"), or nothing is said of them ("abstain").
    """

    def __init__(
        self,
        qrels: Qrels,
        *,
        name: str = "qrels",
        unjudged: Literal["irrelevant", "abstain"] = "abstain",
    ) -> None:
        super().__init__(f"{name} ({unjudged})")
        self._qrels = qrels
        self._unjudged = unjudged

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [Verdict(self._one(comparison)) for comparison in comparisons]

    def _one(self, comparison: Comparison) -> float | None:
        a, b = (
            self._qrels.get(side.query_id, {}).get(side.document_id)
            for side in (comparison.a, comparison.b)
        )
        if self._unjudged == "abstain" and (a is None or b is None):
            return None
        a, b = a or 0, b or 0
        return 0.5 if a == b else float(a > b)


class HumanJudge(Free):
    """Preferences that people wrote down: `{"query_id", "a", "b", "preference"}` a line, ids of two
    documents and P(a is better) in [0, 1] or "a", "b", "tie"; `query_b` where b serves another
    query. Several of one pair are averaged. Nothing is said of other pairs."""

    def __init__(self, path: Path, *, name: str = "people") -> None:
        """Raises BadStage with the number of a line that cannot be read."""
        super().__init__(name)
        told: dict[PairIds, list[float]] = defaultdict(list)
        for number, line in enumerate(_text_lines(path), start=1):
            if line.strip():
                query_a, a, query_b, b, value = _human(path, number, line)
                told[query_a, a, query_b, b].append(value)
                told[query_b, b, query_a, a].append(1.0 - value)
        self._told = {pair: sum(values) / len(values) for pair, values in told.items()}

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [
            Verdict(
                self._told.get(
                    (each.a.query_id, each.a.document_id, each.b.query_id, each.b.document_id)
                )
            )
            for each in comparisons
        ]


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise BadStage(f"{path}, which should hold people's preferences, is missing.") from None
    except OSError as error:
        raise BadStage(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BadStage(f"{path} is not UTF-8 text.") from error


def _human(path: Path, number: int, line: str) -> tuple[str, str, str, str, float]:
    try:
        said: Any = json.loads(line)
        value = said["preference"]
        value = WINNERS[value] if isinstance(value, str) else float(value)
        if not 0.0 <= value <= 1.0:
            raise ValueError(value)
        query = str(said["query_id"])
        return query, str(said["a"]), str(said.get("query_b", query)), str(said["b"]), value
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadStage(
            f"Line {number} of {path} is no preference: it should hold query_id, a, b and a "
            'preference within 0 and 1, or "a", "b" or "tie".'
        ) from error
