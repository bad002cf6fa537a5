"""What a collection's judgments make of a reranker's scores: looked up once per search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rerank.ranking.calibration import Calibration as Map
from rerank.ranking.calibration import from_json
from rerank.ranking.confidence import Confidence
from searchapp.models import Calibration


@dataclass(frozen=True)
class Fitted:
    """`map` None: it would give every hit the same number. `confidence` None: none was fitted."""

    map: Map | None
    confidence: Confidence | None

    def calibrated(
        self, logits: Sequence[float], relevance: Sequence[float]
    ) -> Sequence[float | None]:
        """The probability of relevance of each hit, or None for each."""
        if self.map is None:
            return [None] * len(logits)
        return [float(each) for each in self.map.apply(logits, relevance)]

    def sure(self, logits: Sequence[float]) -> float | None:
        """The confidence of the search, if there is one to give."""
        if self.confidence is None or not len(logits):
            return None
        return self.confidence.of(logits)


_NOTHING = Fitted(None, None)


def fitted_for(collection_id: int, model: str) -> Fitted:
    """By the newest calibration of this model's scores in this collection: one narrow query."""
    if not model:
        return _NOTHING
    newest = Calibration.objects.serving(collection_id, model).values_list("pk", flat=True).first()
    return _NOTHING if newest is None else _read(newest)


# A calibration that is ready never changes, so its number says all.
@lru_cache(maxsize=256)
def _read(pk: int) -> Fitted:
    row = Calibration.objects.filter(pk=pk).values_list("parameters", "confidence").first()
    if row is None:  # deleted since it was looked up
        return _NOTHING
    parameters, confidence = row
    fitted = from_json(json.dumps(parameters))
    return Fitted(
        None if fitted.is_constant else fitted,
        Confidence.from_json(confidence) if confidence else None,
    )
