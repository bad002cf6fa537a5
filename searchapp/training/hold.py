"""A worker's hold on one training. Everything it writes is fenced by a token, so that a worker
thought dead cannot write behind the back of its successor; a thread of its own renews the lease,
because a step of a training may take longer than a lease."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from searchapp.models import TrainingJob, TrainingState
from searchapp.models.training import UNDER_WAY

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30
RENEW_SECONDS = 3.0
PROGRESS_SECONDS = 1.0


class HoldLost(Exception):
    """Somebody else took the training over, or its collection is gone."""


class Hold:
    """From `claim` until `release`."""

    def __init__(self, job: TrainingJob, token: str, ending: Callable[[], bool]) -> None:
        self.job = job
        self.is_cancelled = job.cancel_requested
        self.is_lost = False
        self._token = token
        self._ending = ending
        self._told = 0.0
        self._over = threading.Event()

    def stopped(self) -> bool:
        """Whether to leave off: cancelled, taken over, or the worker is to end."""
        return self.is_cancelled or self.is_lost or self._ending()

    def write(self, **changes: Any) -> None:
        """Raises HoldLost."""
        fields = {"updated_at": timezone.now(), "lease_until": _expiry(), **changes}
        if not self._own().update(**fields):
            self.is_lost = True
            raise HoldLost
        for name, value in changes.items():
            setattr(self.job, name, value)

    def progress(self, at_once: bool = False, **changes: Any) -> None:
        """Written now and then; the last of a stage may be left out. Raises HoldLost."""
        now = time.monotonic()
        if at_once or now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self.write(**changes)

    def release(self, state: str, **changes: Any) -> None:
        """The last write. Raises HoldLost."""
        if state != TrainingState.REQUESTED:
            changes["finished_at"] = timezone.now()
        gone = {"stage": "", "rate": None, "seconds_left": None}
        self.write(**changes, **gone, state=state, lease_token="", lease_until=None)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The lease is renewed meanwhile."""
        thread = threading.Thread(target=self._renew, name="training lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(RENEW_SECONDS + 5)

    def _renew(self) -> None:
        try:
            while not self._over.wait(RENEW_SECONDS):
                try:
                    self._look()
                except DatabaseError as error:
                    # It may come back before the lease runs out; if not, writing will tell.
                    logger.warning("the lease of %s could not be renewed: %s", self.job, error)
                    connection.close()
        finally:
            connection.close()

    def _look(self) -> None:
        if not self._own().update(lease_until=_expiry()):
            # Released in this moment, or lost: then the next write says so.
            self.is_lost = not self._over.is_set() and not self._is_released()
            return
        asked = self._own().values_list("cancel_requested", flat=True).first()
        self.is_cancelled = bool(asked)

    def _is_released(self) -> bool:
        row = TrainingJob.objects.filter(pk=self.job.pk, lease_token="")
        return row.exclude(state__in=UNDER_WAY).exists()

    def _own(self) -> Any:
        return TrainingJob.objects.filter(
            pk=self.job.pk, state__in=UNDER_WAY, lease_token=self._token
        )


def claim(job_id: int, ending: Callable[[], bool]) -> Hold | None:
    """requested -> exporting for exactly one caller; None for everyone else."""
    token = uuid.uuid4().hex
    now = timezone.now()
    waiting = TrainingJob.objects.filter(pk=job_id, state=TrainingState.REQUESTED)
    claimed = waiting.update(
        state=TrainingState.EXPORTING,
        lease_token=token,
        lease_until=_expiry(),
        attempts=F("attempts") + 1,
        started_at=Coalesce(F("started_at"), Value(now)),
        finished_at=None,
        updated_at=now,
        message="",
    )
    if not claimed:
        return None
    job = TrainingJob.objects.select_related(
        "config", "requested_by", "collection__active_config", "collection__active_generation"
    ).get(pk=job_id)
    return Hold(job, token, ending)


def _expiry() -> Any:
    return timezone.now() + timedelta(seconds=LEASE_SECONDS)
