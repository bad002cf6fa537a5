"""Celery's command for a rerank worker whose model costs nothing: what remains is all the rest."""

from __future__ import annotations

import django
import numpy as np
from celery.__main__ import main

from rerank.types import ModelCard, RerankRequest, RerankScores

CARD = ModelCard("null", "Scores documents by their place, for measurements.", "cpu", "float32")


class NullReranker:
    """The documents' order as it came."""

    card = CARD

    def score(self, request: RerankRequest) -> RerankScores:
        relevance = np.linspace(0.9, 0.1, len(request.documents), dtype=np.float32)
        return RerankScores(np.log(relevance / (1 - relevance)), relevance, "sigmoid")


def _without_model() -> None:
    django.setup()
    from searchapp.engine import local

    local._load = lambda name, dtype: NullReranker()


if __name__ == "__main__":
    _without_model()
    main()
