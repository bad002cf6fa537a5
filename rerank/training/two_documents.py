"""How two documents share the room of one row. No torch."""

from __future__ import annotations


def cut_both(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """The first tokens of each, `room` together at most: half each, or what the other leaves."""
    half = room // 2
    of_a = max(half, room - len(b))
    a = a[:of_a]
    return a, b[: room - len(a)]
