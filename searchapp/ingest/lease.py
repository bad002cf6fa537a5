"""A worker's hold on one upload. Everything it writes is fenced by the lease's token, so a worker
that was slow, paused or thought dead cannot write behind the back of its successor."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from searchapp.models import Upload, UploadBatch, UploadState

LEASE_SECONDS = 30
_RENEW_SECONDS = 5.0


class LeaseLost(Exception):
    """Somebody cancelled the upload or took it over; what is left undone is no longer ours."""


class Paused(Exception):
    """The batch was paused; the upload goes back to waiting."""


class Lease:
    """Held from `claim` until `release`."""

    def __init__(self, upload: Upload, token: str) -> None:
        self.upload = upload
        self.token = token
        self._renewed = time.monotonic()

    def renew(self, **changes: Any) -> None:
        """Writes `changes` and extends the lease. Raises LeaseLost.

        Inside a transaction this comes first: it locks the row, so that a cancellation waits for
        the commit and a takeover does not happen during it.
        """
        count = self._own().update(lease_until=_expiry(), **changes)
        if not count:
            raise LeaseLost
        self._renewed = time.monotonic()

    def heartbeat(self) -> None:
        """Renews when it is time. Raises LeaseLost, Paused."""
        if time.monotonic() - self._renewed >= _RENEW_SECONDS:
            self.renew()
            self.check_pause()

    def check_pause(self) -> None:
        """Raises Paused when the batch is paused."""
        if Upload.objects.filter(pk=self.upload.pk, batch__paused=True).exists():
            raise Paused

    def release(self, state: str, **changes: Any) -> None:
        """The last write: the new state, without a lease. Raises LeaseLost."""
        if state not in {UploadState.RECEIVED, UploadState.INDEXING}:
            changes["finished_at"] = timezone.now()
        count = self._own().update(state=state, lease_until=None, lease_token="", **changes)
        if not count:
            raise LeaseLost

    def _own(self) -> Any:
        return Upload.objects.filter(
            pk=self.upload.pk, state=UploadState.PARSING, lease_token=self.token
        )


def claim(upload_id: int) -> Lease | None:
    """received -> parsing for exactly one caller; None for everyone else and in a paused batch."""
    token = uuid.uuid4().hex
    # The state must be the row's own condition: a filter across the join would become a subquery,
    # which PostgreSQL does not ask again after waiting for another claim's commit.
    running = UploadBatch.objects.filter(paused=False)
    waiting = Upload.objects.filter(pk=upload_id, state=UploadState.RECEIVED, batch__in=running)
    claimed = waiting.update(
        state=UploadState.PARSING,
        lease_token=token,
        lease_until=_expiry(),
        attempts=F("attempts") + 1,
        documents_done=0,
        passages_done=0,
        started_at=timezone.now(),
        finished_at=None,
        message="",
    )
    if not claimed:
        return None
    upload = Upload.objects.select_related("collection", "batch", "parent").get(pk=upload_id)
    return Lease(upload, token)


def _expiry() -> Any:
    return timezone.now() + timedelta(seconds=LEASE_SECONDS)
