"""Celery's command for a worker whose model need not pass the checks: random weights mean nothing,
only their time counts."""

from __future__ import annotations

from celery.__main__ import main

from rerank.types import ModelCard
from searchapp.engine import gate, local


def _admit(model: str = "default") -> ModelCard:
    return local.load_reranker(model).card


if __name__ == "__main__":
    gate.admit = _admit
    main()
