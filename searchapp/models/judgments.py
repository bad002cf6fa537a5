"""What people say is relevant, and what was learned from it about a model's scores."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from .corpus import AnyUser, Collection, Role

# A calibration below this many judged queries would be a guess.
MINIMUM_JUDGED_QUERIES = 50
# A document of this grade or a better one counts as relevant.
RELEVANT_FROM = 1
# Calibrating writes its progress at least this often while its worker lives.
SILENT = timedelta(minutes=3)


class Grade(models.IntegerChoices):
    NOT = 0, "Not relevant"
    SOMEWHAT = 1, "Somewhat relevant"
    RELEVANT = 2, "Relevant"
    EXACT = 3, "Exactly right"


class Source(models.TextChoices):
    PAGE = "page", "Search page"
    IMPORT = "import", "Import"


def query_key(query: str) -> str:
    """Equal for queries that differ in case and spacing only."""
    words = " ".join(query.casefold().split())
    return hashlib.md5(words.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


class JudgmentQuerySet(models.QuerySet["Judgment"]):
    def visible_to(self, user: AnyUser) -> Self:
        """Of the collections the user may edit: whoever only searches judges nothing."""
        return self.filter(collection__in=Collection.objects.with_role(user, Role.EDITOR))

    def query_count(self) -> int:
        """How many queries have at least one judgment."""
        return self.order_by().values("collection_id", "query_key").distinct().count()


class Judgment(models.Model):
    """How well one document answers one query, by one judge.

    The document is named by its path, not by its row: a new upload of the file replaces the row,
    and the judgment stays true of it. Imported judgments have no judge; an import replaces those
    that an earlier one gave the same query.
    """

    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="judgments")
    query = models.TextField(max_length=4000)
    query_key = models.CharField(max_length=32, editable=False)
    path = models.CharField(max_length=1024)
    grade = models.PositiveSmallIntegerField(choices=Grade.choices)
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.PAGE)
    judged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    judged_at = models.DateTimeField(auto_now=True)

    objects = JudgmentQuerySet.as_manager()

    class Meta:
        ordering = ["-judged_at", "-id"]
        indexes = [models.Index(fields=["collection", "query_key"], name="judged_query")]
        constraints = [
            models.UniqueConstraint(
                fields=["collection", "query_key", "path", "judged_by"],
                name="one_judgment_per_judge",
            ),
            models.UniqueConstraint(
                fields=["collection", "query_key", "path"],
                condition=Q(source="import"),
                name="one_imported_judgment",
            ),
            models.CheckConstraint(condition=Q(grade__lte=3), name="grade_from_0_to_3"),
        ]

    def __str__(self) -> str:
        return f"{self.grade} for {self.path} on “{self.query}”"


_MAP_NAMES = {
    "temperature": "a temperature",
    "platt": "Platt’s sigmoid",
    "beta": "a beta curve",
    "isotonic": "isotonic",
}


class CalibrationState(models.TextChoices):
    """queued -> running -> ready | failed; a row that is ready never changes again."""

    QUEUED = "queued", "Waiting"
    RUNNING = "running", "Running"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"


class CalibrationQuerySet(models.QuerySet["Calibration"]):
    def visible_to(self, user: AnyUser) -> Self:
        return self.filter(collection__in=Collection.objects.with_role(user, Role.EDITOR))

    def serving(self, collection_id: int, model: str) -> Self:
        """The finished calibrations of one model's scores in one collection, newest first."""
        return self.filter(
            collection_id=collection_id, model=model, state=CalibrationState.READY
        ).order_by("-pk")

    def under_way(self) -> Self:
        """Waiting or running, and heard of lately: a worker killed outright says no more."""
        return self.filter(
            state__in=[CalibrationState.QUEUED, CalibrationState.RUNNING],
            updated_at__gte=timezone.now() - SILENT,
        )


class Calibration(models.Model):
    """One model's scores against one collection's judgments; the newest ready one is in use.

    `parameters`: the map as `rerank.ranking.calibration.to_json` writes it. `confidence`: a
    `rerank.ranking.confidence.Confidence`, or null where there is none that beats chance. `report`:
    what was measured, as searchapp/workbench/calibrating.py writes it.
    """

    collection = models.ForeignKey(
        "Collection", on_delete=models.CASCADE, related_name="calibrations"
    )
    config = models.ForeignKey("SearchConfig", on_delete=models.CASCADE, related_name="+")
    # As ModelCard.name and RerankOutcome.model say it; "" until the first search has answered.
    model = models.CharField(max_length=300, blank=True)
    kind = models.CharField(max_length=12, blank=True)
    parameters = models.JSONField(default=dict, blank=True)
    confidence = models.JSONField(null=True, blank=True)
    report = models.JSONField(default=dict, blank=True)
    # Whether candidates without a judgment counted as not relevant; else they were left out.
    unjudged_count = models.BooleanField(default=False)
    state = models.CharField(
        max_length=8, choices=CalibrationState.choices, default=CalibrationState.QUEUED
    )
    message = models.TextField(blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = CalibrationQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            # Asked once by every search.
            models.Index(
                fields=["collection", "model", "-id"],
                name="calibration_serving",
                condition=Q(state="ready"),
            )
        ]

    def __str__(self) -> str:
        return f"calibration {self.pk} of {self.model or 'a model'} in {self.collection_id}"

    @property
    def map_name(self) -> str:
        return _MAP_NAMES.get(self.kind, self.kind)
