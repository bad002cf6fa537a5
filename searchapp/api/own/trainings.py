"""/api/v1/collections/…/trainings and /checkpoints: read only, decisions are made on the page."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Prefetch
from pydantic import Field as Limited

from searchapp.models import Checkpoint, Family, Scope, TrainingJob
from searchapp.training import registry

from ..refusals import Refusal
from .endpoint import Answer, Call, endpoint
from .places import held
from .schemas import Nothing, Query, Shown


class Training(Shown):
    """`done` of `total` steps of the `stage` under way, `rate` of them a second. `message`: why it
    failed. `figures`: what it trained on. `checkpoint`: the number of what it left."""

    uid: UUID
    state: str
    stage: str
    done: int
    total: int
    rate: float | None
    seconds_left: float | None
    message: str
    settings: dict[str, Any]
    figures: dict[str, Any]
    checkpoint: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TrainingCurves(Training):
    """`curves`: name -> [[step, value], …]."""

    curves: dict[str, Any]


class TrainingList(Shown):
    """Newest first."""

    trainings: list[Training]


class CheckpointRecord(Shown):
    """`model`: as a search config names it. `reasons`: why it was refused or retired, else why it
    may not be activated now. `checks`: those it owes before it serves. `comparison`: how it ranks
    the held-out queries beside the active version."""

    number: int
    model: str
    state: str
    may_be_activated: bool
    reasons: list[str]
    training: UUID
    created_at: datetime
    checks: dict[str, Any]
    comparison: dict[str, Any]


class CheckpointList(Shown):
    """Newest first."""

    checkpoints: list[CheckpointRecord]


class Listed(Query):
    limit: int = Limited(30, ge=1, le=1000)


@endpoint(
    "GET",
    "collections/<slug:slug>/trainings",
    Scope.ADMIN,
    Family.COLLECTIONS,
    query=Listed,
    answer=TrainingList,
)
def list_trainings(call: Call, asked: Listed, slug: str) -> Answer:
    """The trainings of a collection's reranker."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    rows = _with_checkpoint(collection.trainings.all())[: asked.limit]
    return TrainingList(trainings=[Training(**_facts(row)) for row in rows])


@endpoint(
    "GET",
    "collections/<slug:slug>/trainings/<uuid:uid>",
    Scope.ADMIN,
    Family.COLLECTIONS,
    answer=TrainingCurves,
)
def read_training(call: Call, asked: Nothing, slug: str, uid: UUID) -> Answer:
    """One training, with its curves."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    row = _with_checkpoint(collection.trainings.filter(uid=uid)).first()
    if row is None:
        return Refusal(404, "unknown-training", "There is no such training here.")
    return TrainingCurves(**_facts(row), curves=row.points)


@endpoint(
    "GET",
    "collections/<slug:slug>/checkpoints",
    Scope.ADMIN,
    Family.COLLECTIONS,
    query=Listed,
    answer=CheckpointList,
)
def list_checkpoints(call: Call, asked: Listed, slug: str) -> Answer:
    """The trained rerankers of a collection, and what speaks for or against each."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    rows = collection.checkpoints.select_related("job", "collection__active_config")
    return CheckpointList(checkpoints=[_checkpoint(row) for row in rows[: asked.limit]])


def _with_checkpoint(rows: Any) -> Any:
    return rows.prefetch_related(Prefetch("checkpoint", Checkpoint.objects.only("pk", "job")))


def _facts(row: TrainingJob) -> dict[str, Any]:
    checkpoint = getattr(row, "checkpoint", None)
    names = (
        *("uid", "state", "stage", "done", "total", "rate", "seconds_left", "message", "settings"),
        *("figures", "created_at", "started_at", "finished_at"),
    )
    facts = {name: getattr(row, name) for name in names}
    return {**facts, "checkpoint": checkpoint.pk if checkpoint is not None else None}


def _checkpoint(row: Checkpoint) -> CheckpointRecord:
    verdict = registry.verdict(row)
    return CheckpointRecord(
        number=row.pk,
        model=row.model_name,
        state=row.state,
        may_be_activated=verdict.may,
        reasons=[row.reasons] if row.reasons else list(verdict.reasons),
        training=row.job.uid,
        created_at=row.created_at,
        checks=row.parity,
        comparison=row.comparison,
    )
