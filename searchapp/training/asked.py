"""What an owner asks a training for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from django.conf import settings

from rerank.inference.models import UNTRAINED
from rerank.recipes import is_recipe
from searchapp.models import Collection
from searchapp.models.training import checkpoint_number, serving_directory

LOSSES = {
    "listwise": "Cross-entropy over each list",
    "mse": "Squared error of the relevance (as zELO)",
    "bce": "Cross-entropy of each document",
}
# Ahead of the others on held-out queries (docs/experiments.md).
DEFAULT_LOSS = "listwise"
METHODS = {"full": "Every weight", "lora": "LoRA: a few weights beside them"}
MOST_EPOCHS = 50
# Without a GPU a step on the whole list of a query takes seconds.
DEFAULT_EPOCHS = 3
# It starts from the first stage's score, so that few judgments cannot make it worse than level.
BUILT_IN = "The built-in reranker, trained further"
NEW_HEAD = "The built-in embedder's body, with a new head"


class CannotTrain(RuntimeError):
    """The message is a sentence for the reader of the page."""


class Stopped(Exception):
    """The training was cancelled, or its worker is to end."""


@dataclass(frozen=True)
class Asked:
    """`base`: "" for the built-in embedder's body, a model's name, or a checkpoint of the
    collection. `rate`: 0 for the usual one. `unjudged`: candidates without a judgment count as not
    relevant, else they are left out. `searches`: logged searches are learnt from too, by a pairwise
    model."""

    base: str = UNTRAINED
    method: str = "full"
    loss: str = DEFAULT_LOSS
    epochs: int = DEFAULT_EPOCHS
    seed: int = 0
    rate: float = 0.0
    unjudged: bool = False
    searches: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(values: Mapping[str, Any]) -> Asked:
    """What a job's row holds; a row of another version may say more."""
    known = {each.name for each in fields(Asked)}
    return Asked(**{key: value for key, value in values.items() if key in known})


def problem(asked: Asked, collection: Collection) -> str:
    """Why this cannot be trained here, or ""."""
    if asked.method not in METHODS:
        return f"“{asked.method}” is no way to train: choose {' or '.join(METHODS)}."
    if asked.loss not in LOSSES:
        return f"There is no loss called “{asked.loss}”: choose one of {', '.join(LOSSES)}."
    if not 1 <= asked.epochs <= MOST_EPOCHS:
        return f"The number of epochs is a whole number from 1 to {MOST_EPOCHS}."
    if not 0 <= asked.seed < 2**31:
        return "The seed is a whole number from 0 to 2147483647."
    if not 0 <= asked.rate < 1:
        return "The learning rate lies between 0 and 1; 0 means the usual one."
    if asked.searches and not collection.train_on_searches:
        return (
            "The settings of this collection do not let its reranker learn from what people "
            "searched for. Change that there first."
        )
    if checkpoint_number(asked.base) is not None:
        found = serving_directory(asked.base, collection.pk)
        return found if isinstance(found, str) else ""
    if asked.base == UNTRAINED and asked.method == "lora":
        return "The built-in reranker is small enough to be trained whole: choose every weight."
    if is_recipe(asked.base):
        return "A recipe or an endpoint cannot be trained: name a model of its own."
    return ""


def offered_bases(collection: Collection) -> dict[str, str]:
    """Base -> its name on the page: what this installation has anyway, and the collection's own."""
    offered = {UNTRAINED: BUILT_IN, "": NEW_HEAD}
    configured = str(settings.RERANK_MODEL)
    if configured and configured != UNTRAINED and not is_recipe(configured):
        offered[configured] = f"The configured reranker, {Path(configured).name}"
    for checkpoint in collection.checkpoints.filter(state="active"):
        offered[checkpoint.model_name] = f"Checkpoint {checkpoint.pk}, trained further"
    return offered


def base_to_load(asked: Asked, collection_id: int) -> str:
    """A name or directory the engine can open. Raises CannotTrain."""
    if checkpoint_number(asked.base) is None:
        return asked.base
    found = serving_directory(asked.base, collection_id)
    if isinstance(found, str):
        raise CannotTrain(found)
    return str(found)
