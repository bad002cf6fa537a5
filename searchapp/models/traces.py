"""What each search did, kept."""

from __future__ import annotations

import uuid
from typing import Self

from django.conf import settings
from django.db import models

from .corpus import AnyUser, Collection


class TraceQuerySet(models.QuerySet["Trace"]):
    def visible_to(self, user: AnyUser) -> Self:
        """One's own searches in collections one may still see, all for a superuser.

        Searches made without an account are visible to whoever holds their address.
        """
        traces = self.filter(collection__in=Collection.objects.visible_to(user))
        if user is not None and user.is_authenticated:
            if getattr(user, "is_superuser", False):
                return traces
            return traces.filter(models.Q(user_id=user.pk) | models.Q(user=None))
        return traces.filter(user=None)


class Trace(models.Model):
    """One search: its inputs, the config version that made it, its result and its times."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="traces")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    config = models.ForeignKey("SearchConfig", on_delete=models.RESTRICT, related_name="traces")
    query = models.TextField()
    # Null: the config's own instruction; a text, also the empty one, replaces it.
    instruction = models.TextField(null=True, blank=True)  # noqa: DJ001 - null and "" differ here
    filters = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # SearchResult.as_json() of searchapp/search/result.py, completed when the rerank arrives.
    result = models.JSONField(default=dict)
    rerank_status = models.CharField(max_length=12, blank=True)

    objects = TraceQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.query
