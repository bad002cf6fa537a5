"""Rerankers that a collection's own judgments train: the jobs, and the checkpoints they leave."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from .corpus import AnyUser, Collection, Role

# Of a search config's `model`: this and a checkpoint's number.
CHECKPOINT_PREFIX = "checkpoint:"


class TrainingState(models.TextChoices):
    """
    requested -> exporting -> running -> done
        |            |           |
        +------------+-----------+--> failed
        +------------+-----------+--> cancelled

    A job whose worker went away falls back to requested and goes on from what lies in its folder;
    so does one that is done and is to be compared again. Each change is an update that names the
    old state.
    """

    REQUESTED = "requested", "Waiting"
    EXPORTING = "exporting", "Collecting what to train on"
    RUNNING = "running", "Training"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


UNDER_WAY = [TrainingState.EXPORTING, TrainingState.RUNNING]
OPEN_TRAINING = [TrainingState.REQUESTED, *UNDER_WAY]


def training_folder() -> Path:
    """Where jobs and checkpoints lie: beside the uploads, which every worker can reach."""
    return Path(settings.MEDIA_ROOT) / "training"


class TrainingJobQuerySet(models.QuerySet["TrainingJob"]):
    def visible_to(self, user: AnyUser) -> Self:
        """Of the collections the user owns."""
        return self.filter(collection__in=Collection.objects.with_role(user, Role.OWNER))

    def open(self) -> Self:
        return self.filter(state__in=OPEN_TRAINING)


class TrainingJob(models.Model):
    """One training of a reranker for one collection.

    `settings`: what was asked for, as searchapp/training/asked.py writes it. `figures`: what was
    collected to train on, as searchapp/training/export.py counts it. `points`: curve -> [[step,
    value], ...]. `rate`: units a second of the stage under way.
    """

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="trainings")
    # The first stage that found the candidates, and the reranker to be compared with.
    config = models.ForeignKey("SearchConfig", on_delete=models.CASCADE, related_name="+")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    settings = models.JSONField(default=dict, blank=True)
    state = models.CharField(
        max_length=10, choices=TrainingState.choices, default=TrainingState.REQUESTED
    )
    stage = models.CharField(max_length=60, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    rate = models.FloatField(null=True, blank=True)
    seconds_left = models.FloatField(null=True, blank=True)
    points = models.JSONField(default=dict, blank=True)
    figures = models.JSONField(default=dict, blank=True)
    # For the reader of the page: why it failed or was refused.
    message = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    cancel_requested = models.BooleanField(default=False)
    # While a worker holds the job; a lease in the past means that worker is gone.
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_token = models.CharField(max_length=32, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TrainingJobQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=TrainingState.values), name="training_state_is_known"
            ),
            models.UniqueConstraint(
                fields=["collection"],
                condition=Q(state__in=["requested", "exporting", "running"]),
                name="one_open_training",
            ),
        ]
        indexes = [
            models.Index(
                fields=["state", "lease_until"],
                name="training_open",
                condition=Q(state__in=["requested", "exporting", "running"]),
            )
        ]

    def __str__(self) -> str:
        return f"training {self.pk} of {self.collection_id}"

    @property
    def folder(self) -> Path:
        return training_folder() / str(self.collection_id) / self.uid.hex

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_TRAINING

    @property
    def seconds_taken(self) -> float | None:
        """From the first start to the end, or until now; what it lay still before it was compared
        again is left out."""
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()


class CheckpointState(models.TextChoices):
    """
    candidate -> active -> retired
        |
        +--> refused, retired

    An active checkpoint may serve in every version of its collection that names it; a refused one
    never does. A retired one's files are gone.
    """

    CANDIDATE = "candidate", "Waits for a decision"
    ACTIVE = "active", "Activated"
    REFUSED = "refused", "Refused"
    RETIRED = "retired", "Retired"


SERVABLE = [CheckpointState.CANDIDATE, CheckpointState.ACTIVE]


class CheckpointQuerySet(models.QuerySet["Checkpoint"]):
    def visible_to(self, user: AnyUser) -> Self:
        """Of the collections the user owns."""
        return self.filter(collection__in=Collection.objects.with_role(user, Role.OWNER))

    def named(self, model: str, collection_id: int) -> Checkpoint | None:
        """The collection's own checkpoint that a config's `model` names, in whatever state."""
        number = checkpoint_number(model)
        if number is None:
            return None
        return self.filter(pk=number, collection_id=collection_id).first()


class Checkpoint(models.Model):
    """A trained reranker: a directory below the training folder, and what was found about it.

    `manifest`: what made it (rerank/training/checkpoint.py). `parity`: the report of the checks it
    must pass. `comparison`: how it ranks the held-out queries beside the active version
    (searchapp/training/comparison.py). `trained_on`: keys of the judged queries it has learnt from.
    """

    collection = models.ForeignKey(
        "Collection", on_delete=models.CASCADE, related_name="checkpoints"
    )
    job = models.OneToOneField(TrainingJob, on_delete=models.CASCADE, related_name="checkpoint")
    directory = models.CharField(max_length=300)
    manifest = models.JSONField(default=dict, blank=True)
    parity = models.JSONField(default=dict, blank=True)
    comparison = models.JSONField(default=dict, blank=True)
    trained_on = models.JSONField(default=list, blank=True)
    state = models.CharField(
        max_length=10, choices=CheckpointState.choices, default=CheckpointState.CANDIDATE
    )
    # Why it was refused or retired; sentences.
    reasons = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=CheckpointState.values), name="checkpoint_state_is_known"
            )
        ]

    def __str__(self) -> str:
        return self.model_name

    @property
    def model_name(self) -> str:
        """As a search config names it."""
        return f"{CHECKPOINT_PREFIX}{self.pk}"

    @property
    def path(self) -> Path:
        return training_folder() / self.directory


def checkpoint_number(model: str) -> int | None:
    """Of a config's `model`; None where it names no checkpoint."""
    number = model.removeprefix(CHECKPOINT_PREFIX)
    is_one = model.startswith(CHECKPOINT_PREFIX) and number.isascii() and number.isdecimal()
    return int(number) if is_one and len(number) < 19 else None


def serving_directory(model: str, collection_id: int) -> Path | str:
    """Where the files of the named checkpoint lie, or the sentence that says why it cannot serve
    this collection."""
    found: Any = Checkpoint.objects.named(model, collection_id)
    if found is None:
        return f"This collection has no {model.replace(':', ' ')}."
    if found.state not in SERVABLE:
        return f"Checkpoint {found.pk} is {found.get_state_display().lower()} and does not serve."
    path: Path = found.path
    return path
