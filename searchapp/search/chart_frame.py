"""Where the plot of a chart lies in its picture, and its ticks.

Pure: shares of the axes in, pixels out; templates/calibration/_frame.html draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# Pixels above, below and right of the plot: room for the ticks' labels and the axes' names.
_ABOVE, _BELOW, _RIGHT = 12, 44, 12


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Frame:
    """`width`, `height`: of the picture. `left`: where the plot begins, in pixels."""

    width: int
    height: int
    left: int
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()

    @property
    def right(self) -> int:
        return self.width - _RIGHT

    @property
    def top(self) -> int:
        return _ABOVE

    @property
    def bottom(self) -> int:
        return self.height - _BELOW

    @property
    def middle_x(self) -> float:
        return (self.left + self.right) / 2

    @property
    def middle_y(self) -> float:
        return (self.top + self.bottom) / 2

    def across(self, share: float) -> float:
        """The pixel of a share of the axis, 0 at the left end and 1 at the right one."""
        return round(self.left + share * (self.right - self.left), 1)

    def up(self, share: float) -> float:
        """The pixel of a share of the axis, 0 at the lower end and 1 at the upper one."""
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def with_ticks(self, x: Sequence[tuple[float, str]], y: Sequence[tuple[float, str]]) -> Frame:
        """The same with ticks at these shares of its axes."""
        return replace(
            self,
            x_ticks=[Tick(self.across(share), label) for share, label in x],
            y_ticks=[Tick(self.up(share), label) for share, label in y],
        )


def svg_path(points: Sequence[tuple[float, float]]) -> str:
    """A line through points in pixels, as SVG writes it."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
