"""Which rerank workers `manage.py up` starts: one per NVIDIA GPU, found without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Each GPU of the NVIDIA driver has a folder here.
DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class RerankWorker:
    """`name` in the logs, `node` among Celery's workers."""

    name: str
    node: str
    environment: Mapping[str, str] = field(default_factory=dict)


def rerank_workers(environment: Mapping[str, str], driver: Path = DRIVER) -> list[RerankWorker]:
    """RERANK_WORKERS many, or with "auto" one per visible GPU, at least one.

    DEVICE with a place of its own ("cuda:1", "cpu") is a choice of one device: auto is one then.
    Several workers share the GPUs in turn, each seeing one only.
    """
    wanted = environment.get("RERANK_WORKERS", "auto").strip().lower() or "auto"
    device = environment.get("DEVICE", "auto").strip().lower() or "auto"
    gpus = visible_gpus(environment, driver) if device in {"auto", "cuda"} else []
    count = max(len(gpus), 1) if wanted == "auto" else int(wanted)
    if count == 1:
        return [RerankWorker("rerank", "gpu")]
    return [
        RerankWorker(
            f"rerank{number}",
            f"gpu{number}",
            {"CUDA_VISIBLE_DEVICES": gpus[(number - 1) % len(gpus)]} if gpus else {},
        )
        for number in range(1, count + 1)
    ]


def visible_gpus(environment: Mapping[str, str], driver: Path = DRIVER) -> list[str]:
    """Their names for CUDA_VISIBLE_DEVICES."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [each.strip() for each in chosen.split(",") if each.strip() not in {"", "-1"}]
    try:
        return [str(number) for number, _ in enumerate(driver.iterdir())]
    except OSError:
        return []
