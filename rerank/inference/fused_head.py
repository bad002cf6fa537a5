"""The six numbers that make a logit of the first stage's score and MaxSim, and their file."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rerank.errors import ModelNotFound, WrongModel
from rerank.types import FloatArray

# Written by `python -m benches.default_model FOLDER --ship`.
BUILT_IN_HEAD = Path(__file__).parent.parent / "models" / "built_in" / "head.json"
# Of each number in a file: more says nothing, and would differ from machine to machine.
DIGITS = 4
_HEAD = "head"
_MANIFEST = "made"


@dataclass(frozen=True)
class Head:
    """logit = `prior` x prior + `match` x MaxSim + `bias`, where 0 is even odds.

    Where a request brings no priors, `guess_slope` x MaxSim + `guess_start` stands in. Where MaxSim
    can be trusted by a share only, `usual_match` takes the rest of its place.
    """

    prior: float
    match: float
    bias: float
    guess_slope: float
    guess_start: float
    usual_match: float

    def logits(
        self, matches: FloatArray, priors: Sequence[float] | None, trust: float = 1.0
    ) -> FloatArray:
        """Shape (n,). `trust` of the matches in [0, 1]; without priors they are all there is."""
        known = np.asarray(matches, dtype=np.float32)
        prior = (
            self.guess_slope * known + self.guess_start
            if priors is None
            else np.asarray(priors, dtype=np.float32)
        )
        believed = 1.0 if priors is None else trust
        match = believed * known + (1.0 - believed) * self.usual_match
        return (self.prior * prior + self.match * match + self.bias).astype(np.float32)


@functools.lru_cache(maxsize=1)
def built_in_head() -> Head:
    """Of the untrained built-in reranker. Raises ModelNotFound, WrongModel."""
    return read_head(BUILT_IN_HEAD)


def read_head(file: Path) -> Head:
    """Raises ModelNotFound when the file cannot be read, WrongModel when it holds something
    else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelNotFound(
            f"{_named(file)} cannot be read ({error.strerror or error}). {_REMEDY}"
        ) from error
    except ValueError as error:
        raise WrongModel(f"{_named(file)} is not JSON. {_REMEDY}") from error
    numbers = found.get(_HEAD) if isinstance(found, dict) else None
    names = [field.name for field in fields(Head)]
    if not isinstance(numbers, dict) or sorted(numbers) != sorted(names):
        raise WrongModel(
            f"{_named(file)} should hold under {_HEAD!r} the numbers {', '.join(names)}. {_REMEDY}"
        )
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise WrongModel(f"{_named(file)}: {name!r} is no number. {_REMEDY}")
    return Head(**{name: float(numbers[name]) for name in names})


def write_head(file: Path, head: Head, made: Mapping[str, Any]) -> Head:
    """The head as the file has it, rounded. `made`: from what and how, for people. Raises
    OSError."""
    kept = rounded(head)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".new")
    text = json.dumps({_HEAD: asdict(kept), _MANIFEST: dict(made)}, indent=1, ensure_ascii=False)
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(file)
    return kept


def rounded(head: Head) -> Head:
    return Head(**{name: round(value, DIGITS) for name, value in asdict(head).items()})


def _named(file: Path) -> str:
    if file == BUILT_IN_HEAD:
        return "The built-in reranker's file rerank/models/built_in/head.json"
    return f"The file {file}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


_REMEDY = "Copy it again from where Podium came from."
