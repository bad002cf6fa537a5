"""Embedding generations. The vectors themselves live in table searchapp_vector, partitioned by
generation and reached by SQL only (searchapp/search/vectors.py)."""

from __future__ import annotations

from django.db import models


class GenerationState(models.TextChoices):
    """building -> active -> retired. A collection searches its active one."""

    BUILDING = "building", "Building"
    ACTIVE = "active", "Active"
    RETIRED = "retired", "Retired"


class Generation(models.Model):
    """One collection's vectors by one embedder with one set of prefix rules."""

    collection = models.ForeignKey(
        "Collection", on_delete=models.CASCADE, related_name="generations"
    )
    model = models.CharField(max_length=300)
    dimension = models.PositiveIntegerField()
    query_prefix = models.CharField(max_length=200, blank=True)
    document_prefix = models.CharField(max_length=200, blank=True)
    state = models.CharField(
        max_length=8, choices=GenerationState.choices, default=GenerationState.BUILDING
    )
    has_ann_index = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"generation {self.pk}: {self.model} ({self.dimension})"


class PendingVector(models.Model):
    """A passage that still needs its vector; written with the passage, deleted with the vector."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="pending")
    passage = models.ForeignKey("Passage", on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["generation", "passage"], name="one_pending_vector")
        ]

    def __str__(self) -> str:
        return f"passage {self.passage_id} in generation {self.generation_id}"
