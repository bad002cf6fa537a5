"""What judges have answered, kept in a file that only grows, so that nothing is asked twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .growing_file import GrowingFile


@dataclass(frozen=True)
class Answer:
    """`key` names the pair, `swapped` whether its second document was shown first. `preference`:
    for the document shown first, in [0, 1]; None: the judge has none."""

    judge: str
    key: str
    swapped: bool
    preference: float | None


class AnswerBook:
    """One JSON object a line. A line that a kill cut off is dropped when the book is opened again.

    One process writes at a time. `path` None keeps the answers in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        # judge -> (key, swapped) -> preference: millions of them fit into memory.
        self._answers: dict[str, dict[tuple[str, bool], float | None]] = defaultdict(dict)
        self._counts: dict[str, int] = defaultdict(int)
        self._sums: dict[str, float] = defaultdict(float)
        self._file = None
        if path is not None:
            self._file = GrowingFile(
                path, "answer of a judge", "ask again", "The answers before are kept."
            )
            self._file.read(lambda said: self._keep(_answer(said)))

    def __len__(self) -> int:
        return sum(len(answers) for answers in self._answers.values())

    def __iter__(self) -> Iterator[Answer]:
        for judge, answers in self._answers.items():
            for (key, swapped), preference in answers.items():
                yield Answer(judge, key, swapped, preference)

    def judges(self) -> list[str]:
        """Names of those who answered anything."""
        return list(self._answers)

    def get(self, judge: str, key: str, swapped: bool) -> Answer | None:
        answers = self._answers.get(judge, {})
        if (key, swapped) not in answers:
            return None
        return Answer(judge, key, swapped, answers[key, swapped])

    def preference_for_first(self, judge: str) -> tuple[int, float]:
        """(how many preferences it gave, their mean for the document shown first); 0.5 of none."""
        count = self._counts[judge]
        return count, self._sums[judge] / count if count else 0.5

    def add(self, answers: Iterable[Answer]) -> None:
        """Writes them down before it returns. Raises BadStage when they cannot be written."""
        new = [answer for answer in answers if self._keep(answer)]
        if self._file is not None:
            self._file.append(map(vars, new))

    def _keep(self, answer: Answer) -> bool:
        answers = self._answers[answer.judge]
        place = (answer.key, answer.swapped)
        if place in answers:
            return False
        answers[place] = answer.preference
        if answer.preference is not None:
            self._counts[answer.judge] += 1
            self._sums[answer.judge] += answer.preference
        return True


def _answer(said: Any) -> Answer:
    preference = said["preference"]
    if preference is not None and not 0.0 <= preference <= 1.0:
        raise ValueError(preference)
    return Answer(str(said["judge"]), str(said["key"]), bool(said["swapped"]), preference)
