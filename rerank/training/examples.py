"""What a reranker learns from. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rerank.errors import TrainingFailed


@dataclass(frozen=True)
class TrainingList:
    """One query with its documents, which stay together in one step.

    `targets`: relevance of each document in [0, 1]. `priors`: the first stage's fused scores in
    [0, 1] for bases that start from them; None where there are none. `instruction` may be "".
    """

    query_id: str
    query: str
    instruction: str
    documents: tuple[str, ...]
    targets: tuple[float, ...]
    priors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PairExample:
    """`preference`: probability in [0, 1] that document `a` answers the query better than `b`.
    `weight`: how much the pair counts, above 0."""

    query: str
    instruction: str
    a: str
    b: str
    preference: float
    weight: float = 1.0
    query_id: str = ""


Example = TrainingList | PairExample
Examples = Sequence[TrainingList] | Sequence[PairExample]


def check(examples: Examples) -> None:
    """Raises TrainingFailed that names the first example nothing can be learned from, and for none
    at all or both kinds mixed."""
    if not examples:
        raise TrainingFailed("There is nothing to train on: give at least one query.")
    if len({type(each) for each in examples}) > 1:
        raise TrainingFailed("Lists and pairs cannot be trained on together: choose one kind.")
    each: Sequence[Example] = examples
    for number, example in enumerate(each, start=1):
        why = _why_no_list(example) if isinstance(example, TrainingList) else _why_no_pair(example)
        if why:
            raise TrainingFailed(f"Training example {number} ({example.query[:60]!r}) {why}")


def digest(examples: Iterable[Example]) -> str:
    """sha256 over all fields in order."""
    total = hashlib.sha256()
    for example in examples:
        total.update(json.dumps(asdict(example), ensure_ascii=False).encode("utf-8", "replace"))
        total.update(b"\n")
    return total.hexdigest()


def _why_no_list(example: TrainingList) -> str:
    count = len(example.documents)
    if count == 0:
        return "has no documents. Leave the query out."
    if len(example.targets) != count:
        return f"has {count} documents but {len(example.targets)} targets."
    if example.priors is not None and len(example.priors) != count:
        return f"has {count} documents but {len(example.priors)} priors."
    for values in (example.targets, example.priors or ()):
        strange = [value for value in values if not _is_share(value)]
        if strange:
            return f"has a target or prior of {strange[0]}; they lie in 0 to 1."
    return ""


def _why_no_pair(example: PairExample) -> str:
    if not _is_share(example.preference):
        return f"has a preference of {example.preference}; it lies in 0 to 1."
    if not (math.isfinite(example.weight) and example.weight > 0):
        return f"has a weight of {example.weight}; it is above 0."
    return ""


def _is_share(value: float) -> bool:
    return 0.0 <= value <= 1.0
