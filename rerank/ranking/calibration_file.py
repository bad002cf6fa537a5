"""`calibration.json` beside a model's weights: what its scores mean, unless better is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .calibration import Calibration, from_json, to_json
from .confidence import Confidence

FILE_NAME = "calibration.json"


@dataclass(frozen=True)
class ModelCalibration:
    """`confidence` None: not fitted. `note`: one sentence on what it was fitted on. `report`: what
    was measured on queries the fit had not seen, {} where nobody did."""

    calibration: Calibration
    confidence: Confidence | None = None
    note: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


def load_model_calibration(directory: Path | str) -> ModelCalibration | None:
    """What lies beside the model, None where nothing does. Raises ValueError for a broken file."""
    path = Path(directory) / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        data = json.loads(text)
        confidence = data.get("confidence")
        return ModelCalibration(
            from_json(json.dumps(data["calibration"])),
            Confidence.from_json(confidence) if confidence is not None else None,
            str(data.get("note", "")),
            dict(data.get("report") or {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no calibration: {error}. Fit it again.") from error


def save_model_calibration(directory: Path | str, calibration: ModelCalibration) -> Path:
    """Writes the file whole or not at all."""
    path = Path(directory) / FILE_NAME
    fitted = calibration.confidence
    data = {
        "calibration": json.loads(to_json(calibration.calibration)),
        "confidence": fitted.as_json() if fitted is not None else None,
        "note": calibration.note,
        "report": dict(calibration.report),
    }
    beside = path.with_suffix(".json.part")
    beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path
