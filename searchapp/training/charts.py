"""Geometry of the training page's pictures: curves over the steps, and differences with their
intervals.

Pure: a job's points and a checkpoint's comparison in, pixels out; templates/training/ draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchapp.search.chart_frame import Frame, svg_path

from .curves import AGREEMENT, LOSS, QUALITY, Points

PLOT = Frame(width=420, height=220, left=56)
# A table of a curve needs no more rows than a person reads.
_ROWS = 12
# More points than this are a line without dots.
_MOST_DOTS = 30

_STAGES = {"pairwise training": "the judge of pairs", "pointwise training": "the reranker"}
_NAMES = {
    LOSS: "Loss",
    QUALITY: "nDCG@10 on queries set aside",
    AGREEMENT: "Pairs told apart, of queries set aside",
}
DIFFERENCE_WIDTH, DIFFERENCE_HEIGHT = 200, 24


@dataclass(frozen=True)
class Curve:
    """`kind`: loss or quality. `sentence` says the curve in words, `rows` as (step, value)."""

    id: str
    kind: str
    title: str
    sentence: str
    frame: Frame
    path: str
    dots: Sequence[tuple[float, float, str]]
    rows: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Difference:
    """A 95 % interval beside zero, in pixels."""

    low_x: float
    high_x: float
    middle_x: float
    zero_x: float
    sentence: str
    width: int = DIFFERENCE_WIDTH
    height: int = DIFFERENCE_HEIGHT
    middle_y: float = DIFFERENCE_HEIGHT / 2


def curves(points: Points) -> list[Curve]:
    """Of each training of the job the loss and what its validations found, as far as told."""
    found: list[Curve] = []
    for number, (stage, by_name) in enumerate(points.items()):
        for name in (LOSS, QUALITY, AGREEMENT):
            told = by_name.get(name, [])
            # nDCG says more where there is both.
            if not told or (name == AGREEMENT and QUALITY in by_name):
                continue
            name_id = f"curve-{number}-{name.split('@')[0].split()[0]}"
            found.append(_curve(name_id, stage, name, told, is_alone=len(points) == 1))
    return found


def _curve(
    name_id: str, stage: str, name: str, told: Sequence[Sequence[float]], is_alone: bool
) -> Curve:
    of = _STAGES.get(stage, stage)
    steps, values = [point[0] for point in told], [point[1] for point in told]
    last = max(steps[-1], 1.0)
    low, high, ticks = _scale(values, from_zero=name == LOSS)
    places = [
        (PLOT.across(step / last), PLOT.up((value - low) / (high - low)))
        for step, value in zip(steps, values, strict=True)
    ]
    best = min(values) if name == LOSS else max(values)
    sentence = f"{_NAMES[name]} of {of}: {values[0]:.3f} at step {steps[0]:g}"
    if len(told) > 1:
        extreme = "lowest" if name == LOSS else "highest"
        sentence += f", {values[-1]:.3f} at step {steps[-1]:g}, {extreme} {best:.3f}"
    dots = []
    if len(told) <= _MOST_DOTS:
        dots = [
            (x, y, f"step {step:g}: {value:.3f}")
            for (x, y), step, value in zip(places, steps, values, strict=True)
        ]
    stride = max(1, math.ceil(len(told) / _ROWS))
    kept = sorted({*range(0, len(told), stride), len(told) - 1})
    return Curve(
        id=name_id,
        kind="loss" if name == LOSS else "quality",
        title=_NAMES[name] if is_alone else f"{_NAMES[name]}: {of}",
        sentence=f"{sentence}.",
        frame=PLOT.with_ticks(
            # There is no step between two steps to write below the middle.
            [(share, f"{share * last:g}") for share in (0, 0.5, 1) if not share * last % 1],
            [((tick - low) / (high - low), f"{tick:g}") for tick in ticks],
        ),
        path=svg_path(places),
        dots=dots,
        rows=[(int(steps[at]), values[at]) for at in kept],
    )


def difference(found: Mapping[str, Any], name: str) -> Difference:
    """`found`: one of a comparison's differences; `name` of what the checkpoint is held against."""
    low, high, middle = (float(found[each]) for each in ("low", "high", "difference"))
    reach = max(0.02, abs(low), abs(high)) * 1.1

    def across(value: float) -> float:
        return round((value / reach + 1) / 2 * DIFFERENCE_WIDTH, 1)

    return Difference(
        low_x=across(low),
        high_x=across(high),
        middle_x=across(middle),
        zero_x=across(0),
        sentence=(
            f"This checkpoint minus {name}: {middle:+.3f} nDCG@10, 95 % interval {low:+.3f} to "
            f"{high:+.3f}; 0 means no difference"
        ),
    )


def _scale(values: Sequence[float], *, from_zero: bool) -> tuple[float, float, list[float]]:
    """Lower and upper end of an axis with round ticks that hold all values."""
    high = max(values)
    # A level curve lies at the upper end: there is no room above an nDCG of 1.
    low = 0.0 if from_zero else max(0.0, min(*values, high - 0.02))
    span = max(high - low, 0.02 if not from_zero else 1e-6)
    step = float(10 ** math.floor(math.log10(span)))
    step *= next(part for part in (0.2, 0.25, 0.5, 1, 2) if span / (step * part) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [round(number * step, 10) for number in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks
