"""Numbers on a command line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """For `type=` of an argument."""

    def whole_number(raw: str) -> int:
        value = int(raw)
        if value < least:
            raise ArgumentTypeError(f"{raw} is not {f'at least {least}' if least else '0 or more'}")
        return value

    return whole_number


def between(low: float, high: float) -> Callable[[str], float]:
    """For `type=` of an argument: a number above `low` and below `high`."""

    def number(raw: str) -> float:
        value = float(raw)
        if not low < value < high:
            raise ArgumentTypeError(f"{raw} is not above {low:g} and below {high:g}")
        return value

    return number
