"""A job's files through rerank.zelo. Brings torch along, so only a worker calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

from rerank.inference.models import UNTRAINED
from searchapp.models import TrainingJob

from .asked import Asked, CannotTrain, Stopped, base_to_load
from .export import CANDIDATES, QRELS

RUN_FOLDER = "run"
# Collections have few judged queries: with the steps and rates that suit thousands hardly anything
# is learnt within some epochs.
_QUERIES_A_STEP = 4
_RATES = {"full": 5e-5, "lora": 1e-4}
# Of a head that is new and starts at zero.
_NEW_HEAD_RATE = 1e-3
# Of the built-in reranker's few numbers that weigh first stage and matches.
_FUSION_RATE = 5e-3


def train(
    job: TrainingJob,
    asked: Asked,
    *,
    on_event: Callable[[Any], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """The trained checkpoint's directory. A job that was interrupted goes on where it was. Raises
    Stopped, CannotTrain and what the pipeline raises."""
    from rerank.zelo.recipe import recipe_of
    from rerank.zelo.run import run

    base = base_to_load(asked, job.collection_id)
    recipe = recipe_of(tables(asked, base), job.folder, "This training")
    command = ("manage.py", "train", job.collection.slug)
    outcome = run(
        recipe, job.folder / RUN_FOLDER, on_event=on_event, stopped=stopped, command=command
    )
    if outcome.state == "cancelled":
        raise Stopped
    if outcome.checkpoint is None:
        raise CannotTrain(" ".join(outcome.sentences) or "The training left no checkpoint.")
    return outcome.checkpoint


def tables(asked: Asked, base: str) -> dict[str, Any]:
    """The recipe. People's grades are the only judge; what was searched for but not judged is
    judged by a pairwise model that has learnt from them."""
    training: dict[str, Any] = {
        "base": base,
        "method": asked.method,
        "epochs": asked.epochs,
        # Without a GPU a step takes seconds; a worker that ends loses no more than these.
        "save_every": 25,
        "rate": asked.rate or _RATES[asked.method],
    }
    if not base:
        training["head_rate"] = max(_NEW_HEAD_RATE, training["rate"])
    pairwise = training
    if base == UNTRAINED:
        # It reads one document at a time, so its body with a new head compares two.
        pairwise = {**training, "base": "", "head_rate": max(_NEW_HEAD_RATE, training["rate"])}
        training["head_rate"] = _FUSION_RATE
    recipe: dict[str, Any] = {
        "name": "collection",
        "seed": asked.seed,
        "device": settings.DEVICE,
        "data": {"candidates": CANDIDATES, "qrels": QRELS},
        # What counts as not relevant has its grade 0 in the file.
        "judges": [{"kind": "qrels", "unjudged": "abstain"}],
        "judging": {"calibrate": False},
        "pointwise": {
            **training,
            "loss": asked.loss,
            "seeds": [asked.seed],
            "batch": _QUERIES_A_STEP,
        },
    }
    if asked.searches:
        recipe["pairwise"] = {**pairwise, "seeds": [asked.seed]}
        # Every judged document is compared with several others, for there are few of them.
        recipe["pairs"] = {"gold": 40}
    return recipe
