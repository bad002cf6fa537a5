"""The reranker that a caller names: a model id, "default", or "podium/<collection>" for the model
with the instruction and the calibration that a collection is tuned to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from searchapp.engine.sockets import RerankOutcome
from searchapp.models import Collection, Scope, SearchConfig
from searchapp.search.calibrated import fitted_for
from searchapp.search.configs import rendered_instruction

from .auth import Caller
from .collection_names import named
from .refusals import Refusal

OF_A_COLLECTION = "podium/"
BUILT_IN = "untrained"


@dataclass(frozen=True)
class Chosen:
    """`model` is what the engine is asked for. `config` and `collection` are those of a profile."""

    model: str
    collection: Collection | None = None
    config: SearchConfig | None = None

    @property
    def instruction(self) -> str:
        return rendered_instruction(self.config) if self.config is not None else ""

    def scores(self, outcome: RerankOutcome) -> Sequence[float]:
        """In [0, 1]: calibrated where a profile's collection is, else the model's own relevance."""
        if self.collection is not None:
            fitted = fitted_for(self.collection.pk, outcome.model)
            calibrated = fitted.calibrated(outcome.logits, outcome.relevance)
            known = [each for each in calibrated if each is not None]
            if known and len(known) == len(calibrated):
                return known
        return outcome.relevance


def chosen(caller: Caller, name: str) -> Chosen | Refusal:
    """404 for a model that is not offered here and for a profile the caller may not see."""
    if name.startswith(OF_A_COLLECTION):
        collection = named(caller, name.removeprefix(OF_A_COLLECTION), Scope.SEARCH)
        if isinstance(collection, Refusal):
            return collection
        config = collection.active_config
        if config is None:
            return Refusal(404, "unknown-model", f"“{name}” has no active search config.")
        return Chosen(config.model, collection, config)
    name = settings.API_MODEL_ALIASES.get(name, name)
    # What a worker would refuse is refused here, before the texts travel.
    if name in {"default", BUILT_IN} or (name and name == settings.RERANK_MODEL):
        return Chosen(name)
    return Refusal(
        404,
        "unknown-model",
        f"There is no model “{name[:200]}” here. “default” is the one this server serves; "
        "“podium/<collection>” is that with a collection's instruction and calibration.",
    )
