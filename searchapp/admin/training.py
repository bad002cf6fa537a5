"""Trainings and their checkpoints: to read; what is decided about them is decided on their page."""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse

from searchapp.models import Checkpoint, TrainingJob

from .records import ReadOnlyAdmin


@admin.register(TrainingJob)
class TrainingJobAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "collection", "state", "stage", "requested_by", "created_at"]
    list_filter = ["state", ("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection", "requested_by"]
    exclude = ["lease_token", "points"]

    def view_on_site(self, obj: TrainingJob) -> str:
        return reverse("collection_training", args=[obj.collection.slug])


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "collection", "state", "created_at"]
    list_filter = ["state", ("collection", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["collection"]
    exclude = ["trained_on"]

    def view_on_site(self, obj: Checkpoint) -> str:
        return reverse("collection_training", args=[obj.collection.slug])
