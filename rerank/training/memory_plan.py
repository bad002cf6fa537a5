"""How much GPU memory training takes, by arithmetic. No torch."""

from __future__ import annotations


def plan_table(model: str, gpu_gb: float | None = None) -> str:
    """The table that `python -m rerank zelo plan` prints. `model`: "1.7b", "4b" or a directory with
    a Qwen3 config.json. `gpu_gb`: of one GPU; None for 16, 24, 40, 48 and 80. Raises
    ModelNotFound, WrongModel."""
    raise NotImplementedError
