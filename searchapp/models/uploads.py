"""Uploaded files and where each of them is on its way to being searchable."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q


class UploadState(models.TextChoices):
    """
    received -> parsing -> indexing -> ready
        |          |          |
        +----------+----------+--> failed (retry returns it to received when retryable)
        +----------+----------+--> cancelled
        +--> duplicate (of an earlier upload with the same bytes)

    A paused batch keeps its uploads where they are; parsing and indexing ones fall back to
    received at their next step. Each change is an update that names the old state.
    """

    RECEIVED = "received", "Waiting"
    PARSING = "parsing", "Reading"
    INDEXING = "indexing", "Indexing"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    DUPLICATE = "duplicate", "Duplicate"
    CANCELLED = "cancelled", "Cancelled"


OPEN_STATES = [UploadState.RECEIVED, UploadState.PARSING, UploadState.INDEXING]


def upload_path(upload: Upload, filename: str) -> str:
    """A storage name that owes nothing to the user's file name."""
    return f"uploads/{upload.collection_id}/{uuid.uuid4().hex}"


class UploadBatch(models.Model):
    """The files of one drop, one form or one command, paused and cancelled together."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="batches")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    paused = models.BooleanField(default=False)

    class Meta:
        verbose_name_plural = "upload batches"

    def __str__(self) -> str:
        return f"batch {self.pk} into {self.collection_id}"


class Upload(models.Model):
    """One uploaded file, or one member of an uploaded archive (`parent` is then the archive)."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    batch = models.ForeignKey(UploadBatch, on_delete=models.CASCADE, related_name="uploads")
    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="uploads")
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="members"
    )
    # The user's name for it, with folders; the path of the document it becomes.
    name = models.CharField(max_length=1024)
    # Set by programs: all that the file holds becomes the one document of this path.
    document_path = models.CharField(max_length=1024, blank=True, editable=False)
    file = models.FileField(upload_to=upload_path, max_length=300)
    media_type = models.CharField(max_length=100, blank=True)
    size_bytes = models.BigIntegerField()
    checksum = models.CharField(max_length=64)  # SHA-256, hexadecimal
    # Merged into the metadata of every document made from this file.
    metadata = models.JSONField(default=dict, blank=True)
    state = models.CharField(
        max_length=10, choices=UploadState.choices, default=UploadState.RECEIVED
    )
    # For the reader of the page: why it failed, what it duplicates, what was left out.
    message = models.TextField(blank=True)
    retryable = models.BooleanField(default=False)
    attempts = models.PositiveIntegerField(default=0)
    duplicate_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    # While a worker holds the upload; a lease in the past means that worker is gone.
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_token = models.CharField(max_length=32, blank=True)
    documents_done = models.PositiveIntegerField(default=0)
    passages_done = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["collection", "checksum"]),
            models.Index(
                fields=["state", "lease_until"],
                name="upload_open",
                condition=Q(state__in=["received", "parsing", "indexing"]),
            ),
        ]

    def __str__(self) -> str:
        return self.name
