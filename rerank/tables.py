"""Tables of TOML files, checked key by key: what is unknown, missing or of a wrong kind is named in
one sentence."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank.errors import BadRecipe


@dataclass(frozen=True)
class Check:
    """`expected` completes "must be"; `shown`: whether a wrong value may be repeated."""

    expected: str
    fits: Callable[[Any], bool]
    shown: bool = True


def number(low: float, high: float) -> Check:
    def fits(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and low <= value <= high

    return Check(f"a number from {low:g} to {high:g}", fits)


def whole(low: int, high: int) -> Check:
    def fits(value: Any) -> bool:
        return type(value) is int and low <= value <= high

    return Check(f"a whole number from {low} to {high}", fits)


def one_of(values: Sequence[str]) -> Check:
    return Check(f"one of {', '.join(values)}", lambda value: value in list(values))


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


TEXT = Check("a text", lambda value: isinstance(value, str) and bool(value.strip()))
FLAG = Check("true or false", lambda value: isinstance(value, bool))
TABLE = Check("a table of texts, numbers, lists and true or false", _is_plain)
VARIABLE = Check(
    "the name of an environment variable that holds the key, never the key itself",
    lambda value: isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w{0,99}", value) is not None,
    shown=False,
)


def checked(
    where: str, table: Mapping[str, Any], checks: Mapping[str, Check], required: tuple[str, ...]
) -> dict[str, Any]:
    """The table's values, each of which is known and fits. Raises BadRecipe."""
    for key, value in table.items():
        check = checks.get(key)
        if check is None:
            near = difflib.get_close_matches(key, checks, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(checks))}."
            raise BadRecipe(f"{where}: the key {key} is unknown; {hint}")
        if not check.fits(value):
            wrong = f", not {value!r}" if check.shown else ""
            raise BadRecipe(f"{where}: {key} must be {check.expected}{wrong}.")
    for key in required:
        if key not in table:
            raise BadRecipe(f"{where}: the key {key} is missing.")
    return dict(table)
