"""Geometry of the two pictures of a calibration: reliability, and risk against coverage.

Pure: the report of searchapp/workbench/calibrating.py in, points and paths in pixels out;
templates/calibration/_charts.html draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .chart_frame import Frame, svg_path

PLOT = Frame(width=360, height=320, left=60)
_ORACLE_POINTS = 60


@dataclass(frozen=True)
class Point:
    """A bin. `low_y`, `high_y`: ends of its interval, in pixels. `sentence` says it in words."""

    x: float
    y: float
    low_y: float
    high_y: float
    predicted: float
    observed: float
    low: float
    high: float
    count: int
    sentence: str


@dataclass(frozen=True)
class Series:
    """One side of the reliability diagram; `name` is before or after."""

    name: str
    label: str
    points: Sequence[Point]
    path: str


@dataclass(frozen=True)
class Reliability:
    frame: Frame
    series: Sequence[Series]


@dataclass(frozen=True)
class RiskCoverage:
    """Paths of three orders of answering: by confidence, at random, by one who knows."""

    frame: Frame
    path: str
    random_path: str
    oracle_path: str
    rows: Sequence[tuple[float, float]]


def reliability(report: Mapping[str, Any]) -> Reliability:
    """Both sides of the report: before (relevance) and after (calibrated)."""
    ticks = [(each, f"{each:g}") for each in (0, 0.25, 0.5, 0.75, 1)]
    frame = PLOT.with_ticks(ticks, ticks)
    labels = {"before": "relevance", "after": "calibrated"}
    series = [_series(name, label, report[name]["bins"]) for name, label in labels.items()]
    return Reliability(frame, series)


def risk_coverage(confidence: Mapping[str, Any]) -> RiskCoverage:
    """The curve of the report's confidence; the height is the next tenth above the highest risk."""
    coverage, risk = confidence["coverage"], confidence["risk"]
    overall = float(confidence["random"])
    ceiling = min(1.0, max(0.1, math.ceil(10 * max([*risk, overall]) - 1e-9) / 10))
    shares = [ceiling * part / 4 for part in range(5)]
    frame = PLOT.with_ticks(
        [(each, f"{100 * each:g} %") for each in (0, 0.25, 0.5, 0.75, 1)],
        [(each / ceiling, f"{100 * each:.3g} %") for each in shares],
    )
    steps = [(place + 1) / _ORACLE_POINTS for place in range(_ORACLE_POINTS)]
    # One who knows answers the right ones first: nothing is wrong until they run out.
    best = [max(0.0, (each - (1 - overall)) / each) for each in steps]
    shown = [1 / 4, 1 / 2, 3 / 4, 1]
    at_random = PLOT.up(overall / ceiling)
    return RiskCoverage(
        frame=frame,
        path=svg_path(
            [
                (PLOT.across(x), PLOT.up(y / ceiling))
                for x, y in zip([0.0, *coverage], [risk[0], *risk], strict=True)
            ]
        ),
        random_path=svg_path([(PLOT.left, at_random), (PLOT.right, at_random)]),
        oracle_path=svg_path(
            [
                (PLOT.across(x), PLOT.up(y / ceiling))
                for x, y in zip([0.0, *steps], [0.0, *best], strict=True)
            ]
        ),
        rows=[(each, _at(coverage, risk, each)) for each in shown],
    )


def _series(name: str, label: str, bins: Sequence[Mapping[str, Any]]) -> Series:
    points = [
        Point(
            x=PLOT.across(each["predicted"]),
            y=PLOT.up(each["observed"]),
            low_y=PLOT.up(each["low"]),
            high_y=PLOT.up(each["high"]),
            predicted=each["predicted"],
            observed=each["observed"],
            low=each["low"],
            high=each["high"],
            count=each["count"],
            sentence=(
                f"{label} {each['predicted']:.2f} on average: {100 * each['observed']:.0f} of 100 "
                f"relevant ({100 * each['low']:.0f} to {100 * each['high']:.0f}), "
                f"{each['count']:,} pairs"
            ),
        )
        for each in bins
    ]
    return Series(name, label, points, svg_path([(point.x, point.y) for point in points]))


def _at(coverage: Sequence[float], risk: Sequence[float], share: float) -> float:
    nearest = min(range(len(coverage)), key=lambda place: abs(coverage[place] - share))
    return risk[nearest]
