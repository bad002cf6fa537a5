"""Geometry of the before/after picture: two ordered lists of the same things, joined by lines.

Pure: ids, titles, ranks and scores in, rows and curves out; templates/search/_compare.html draws
them. One picture shows the first `rows` places of both lists. What has its other end below that, or
in no list at all, gets a line that leaves through the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# The pixels one place takes, by how many are shown.
ROW_HEIGHTS = {10: 44, 25: 32, 100: 22}
ROW_CHOICES = tuple(ROW_HEIGHTS)
FIRST_PAGE = 10
# Room below the last place, through which lines leave.
TAIL = 28

Direction = Literal["up", "down", "same", "new", "gone"]


@dataclass(frozen=True)
class Entry:
    """One place in one list. `rank` counts from 1; `score` None when there is none to show."""

    id: int
    title: str
    rank: int
    score: float | None = None
    detail: str = ""
    href: str = ""


@dataclass(frozen=True)
class Line:
    """One thing in the picture. `before_y`, `after_y`: pixel rows of its ends, from the top."""

    id: int
    title: str
    detail: str
    href: str
    before_rank: int | None
    after_rank: int | None
    before_score: float | None
    after_score: float | None
    before_y: float
    after_y: float
    shows_before: bool
    shows_after: bool
    row_height: int
    first_page: int

    @property
    def before_top(self) -> float:
        return self.before_y - self.row_height / 2

    @property
    def after_top(self) -> float:
        return self.after_y - self.row_height / 2

    @property
    def direction(self) -> Direction:
        if self.before_rank is None:
            return "new"
        if self.after_rank is None:
            return "gone"
        if self.after_rank < self.before_rank:
            return "up"
        return "down" if self.after_rank > self.before_rank else "same"

    @property
    def places(self) -> int:
        """How many places it moved, either way; 0 when it is in one list only."""
        if self.before_rank is None or self.after_rank is None:
            return 0
        return abs(self.before_rank - self.after_rank)

    @property
    def sign(self) -> str:
        signs = {"up": f"▲{self.places}", "down": f"▼{self.places}", "same": "="}
        return signs.get(self.direction, self.direction)

    @property
    def entered(self) -> bool:
        """It came onto the first page."""
        return _within(self.after_rank, self.first_page) and not _within(
            self.before_rank, self.first_page
        )

    @property
    def left(self) -> bool:
        """It left the first page."""
        return _within(self.before_rank, self.first_page) and not _within(
            self.after_rank, self.first_page
        )

    @property
    def path(self) -> str:
        """The curve in a box 100 wide; the picture stretches it to the room there is."""
        return f"M0 {self.before_y:g}C50 {self.before_y:g} 50 {self.after_y:g} 100 {self.after_y:g}"

    @property
    def sentence(self) -> str:
        """All of it in words, for readers who do not see the picture."""
        before = f"rank {self.before_rank}" if self.before_rank else "absent"
        after = f"rank {self.after_rank}" if self.after_rank else "absent"
        if self.before_score is not None:
            before += f" (score {self.before_score:.3f})"
        if self.after_score is not None:
            after += f" (score {self.after_score:.3f})"
        return f"{self.title}: {before} before, {after} after, {self.movement_in_words}"

    @property
    def movement_in_words(self) -> str:
        words = {
            "up": f"up {self.places}",
            "down": f"down {self.places}",
            "same": "unchanged",
            "new": "new",
            "gone": "gone",
        }[self.direction]
        if self.entered:
            return f"{words}, onto the first page"
        return f"{words}, off the first page" if self.left else words


@dataclass(frozen=True)
class Slopegraph:
    """What the template draws. `lines` are in the order of the second list, then those it lost."""

    lines: tuple[Line, ...]
    rows: int
    row_height: int
    height: int
    divider_y: float | None
    before_label: str
    after_label: str

    @property
    def risen(self) -> int:
        return sum(1 for line in self.lines if line.direction in {"up", "new"})

    @property
    def fallen(self) -> int:
        return sum(1 for line in self.lines if line.direction in {"down", "gone"})

    @property
    def unchanged(self) -> int:
        return sum(1 for line in self.lines if line.direction == "same")

    @property
    def entered(self) -> int:
        return sum(1 for line in self.lines if line.entered)


def compare(
    before: Sequence[Entry],
    after: Sequence[Entry],
    *,
    rows: int = 10,
    first_page: int = FIRST_PAGE,
    before_label: str = "Before",
    after_label: str = "After",
) -> Slopegraph:
    """The picture of the first `rows` places (one of ROW_CHOICES, else ValueError) of two lists."""
    if rows not in ROW_HEIGHTS:
        raise ValueError(f"rows {rows} is none of {ROW_CHOICES}")
    row_height = ROW_HEIGHTS[rows]
    was = {entry.id: entry for entry in before}
    now = {entry.id: entry for entry in after}
    longest = max((entry.rank for entry in [*before, *after]), default=0)
    places = min(rows, longest)
    bottom = places * row_height

    def y_of(entry: Entry | None) -> float:
        if entry is None or entry.rank > places:
            return bottom + TAIL
        return (entry.rank - 0.5) * row_height

    ids = [entry.id for entry in sorted(after, key=lambda entry: entry.rank)]
    ids += [
        entry.id for entry in sorted(before, key=lambda entry: entry.rank) if entry.id not in now
    ]
    lines = []
    for entry_id in ids:
        old, new = was.get(entry_id), now.get(entry_id)
        some = new or old
        shows_before = old is not None and old.rank <= places
        shows_after = new is not None and new.rank <= places
        if some is None or not (shows_before or shows_after):
            continue
        lines.append(
            Line(
                id=entry_id,
                title=some.title,
                detail=some.detail,
                href=some.href,
                before_rank=old.rank if old else None,
                after_rank=new.rank if new else None,
                before_score=old.score if old else None,
                after_score=new.score if new else None,
                before_y=y_of(old),
                after_y=y_of(new),
                shows_before=shows_before,
                shows_after=shows_after,
                row_height=row_height,
                first_page=first_page,
            )
        )
    leaves = any(not (line.shows_before and line.shows_after) for line in lines)
    return Slopegraph(
        lines=tuple(lines),
        rows=rows,
        row_height=row_height,
        height=bottom + (TAIL if leaves else 0),
        divider_y=first_page * row_height if places > first_page else None,
        before_label=before_label,
        after_label=after_label,
    )


def _within(rank: int | None, limit: int) -> bool:
    return rank is not None and rank <= limit
