"""The loss and nDCG of a training under way, as few points as a picture needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LOSS = "loss"
QUALITY = "nDCG@10"
AGREEMENT = "pairwise accuracy"
# A picture is not wider than so many pixels.
MOST_POINTS = 240

Points = dict[str, dict[str, list[list[float]]]]


def add(points: Points, stage: str, event: Mapping[str, Any]) -> bool:
    """Adds an event of the training loop to the curves of its stage; whether it had anything to
    add. What an interrupted run tells a second time replaces what it told before."""
    step = event.get("step")
    if not isinstance(step, int | float):
        return False
    # A validation tells its metrics by name, within an object of their own or beside the step.
    inner = event.get("metrics")
    told = {**event, **(inner if isinstance(inner, Mapping) else {})}
    is_validation = event.get("event") == "validation"
    names = (QUALITY, AGREEMENT) if is_validation else (LOSS,)
    added = False
    for name in names:
        value = told.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            continue
        curve = points.setdefault(stage, {}).setdefault(name, [])
        while curve and curve[-1][0] >= step:
            curve.pop()
        curve.append([float(step), round(float(value), 5)])
        if len(curve) > MOST_POINTS:
            del curve[1:-1:2]
        added = True
    return added
