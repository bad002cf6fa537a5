"""Versioned search configs: what a search of a collection does, and who changed it why."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q


class Fusion(models.TextChoices):
    WEIGHTED = "weighted", "Weighted scores"
    RRF = "rrf", "Reciprocal ranks"


class Variant(models.TextChoices):
    LUCENE = "lucene", "Lucene"
    OKAPI = "okapi", "Okapi (as rank-bm25)"


class SearchConfig(models.Model):
    """One version. Frozen once `frozen_at` is set: by activation or by the first search with it."""

    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="configs")
    version = models.PositiveIntegerField()
    instruction = models.TextField(blank=True, max_length=4000)
    # [{"term": ..., "meaning": ...}], rendered below the instruction
    glossary = models.JSONField(default=list, blank=True)
    lexical_depth = models.PositiveIntegerField(
        default=200, validators=[MinValueValidator(0), MaxValueValidator(1000)]
    )
    dense_depth = models.PositiveIntegerField(
        default=200, validators=[MinValueValidator(0), MaxValueValidator(1000)]
    )
    fusion = models.CharField(max_length=8, choices=Fusion.choices, default=Fusion.WEIGHTED)
    dense_weight = models.FloatField(
        default=0.7, validators=[MinValueValidator(0), MaxValueValidator(1)]
    )
    rrf_k = models.PositiveIntegerField(
        default=60, validators=[MinValueValidator(1), MaxValueValidator(1000)]
    )
    bm25_variant = models.CharField(max_length=8, choices=Variant.choices, default=Variant.LUCENE)
    bm25_k1 = models.FloatField(
        default=0.9, validators=[MinValueValidator(0), MaxValueValidator(10)]
    )
    bm25_b = models.FloatField(default=0.4, validators=[MinValueValidator(0), MaxValueValidator(1)])
    # 0 turns reranking off.
    rerank_depth = models.PositiveIntegerField(default=100, validators=[MaxValueValidator(200)])
    # "default" is the configured reranker.
    model = models.CharField(max_length=300, default="default")
    # Hits below this relevance are left out; null keeps all, 0 is a threshold like any other.
    threshold = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(1)]
    )
    note = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    frozen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-version"]
        constraints = [
            models.UniqueConstraint(fields=["collection", "version"], name="one_config_version"),
            models.CheckConstraint(
                condition=Q(lexical_depth__gt=0) | Q(dense_depth__gt=0), name="at_least_one_leg"
            ),
        ]

    def __str__(self) -> str:
        return f"v{self.version} of {self.collection_id}"


def first_dense_weight(language: str) -> float:
    """The share of the dense leg in a new collection's fusion, in [0, 1].

    The built-in embedder has read English only; in other languages words must lead
    (docs/experiments.md, 2026-11-21). An embedder of the installation's own choice is trusted.
    """
    return 0.3 if language != "en" and not settings.EMBED_MODEL else 0.7


class ConfigActivation(models.Model):
    """Who made which version active, when and why."""

    collection = models.ForeignKey(
        "Collection", on_delete=models.CASCADE, related_name="activations"
    )
    config = models.ForeignKey(SearchConfig, on_delete=models.CASCADE, related_name="activations")
    previous = models.ForeignKey(
        SearchConfig, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    activated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    activated_at = models.DateTimeField(auto_now_add=True)
    reason = models.TextField()

    class Meta:
        ordering = ["-activated_at", "-id"]

    def __str__(self) -> str:
        return f"{self.config} activated"


class SavedQuery(models.Model):
    """A query an owner keeps to preview drafts on."""

    collection = models.ForeignKey(
        "Collection", on_delete=models.CASCADE, related_name="saved_queries"
    )
    text = models.CharField(max_length=4000)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "saved queries"
        constraints = [
            models.UniqueConstraint(fields=["collection", "text"], name="one_saved_query")
        ]

    def __str__(self) -> str:
        return self.text
