"""Trainings asked for, cancelled, compared again and kept going, by pages, commands and the clock.

The work itself is in work.py."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import DateTimeField, F, Value
from django.utils import timezone
from kombu.exceptions import OperationalError

from searchapp.celery import app
from searchapp.engine import broker
from searchapp.models import Checkpoint, Collection, TrainingJob, TrainingState
from searchapp.models.corpus import AnyUser
from searchapp.models.training import UNDER_WAY

from .asked import Asked, problem
from .counting import counts, too_few
from .registry import clear

logger = logging.getLogger(__name__)

QUEUE = "training"
TASK = "searchapp.tasks.train"
# A worker that was killed outright so often will not get further.
MAX_ATTEMPTS = 4
# A job that nobody took for so long has lost its message.
_LOST_AFTER_SECONDS = 60


# --- asking ------------------------------------------------------------------------------------


def request_training(collection: Collection, user: AnyUser, asked: Asked) -> TrainingJob | str:
    """A job that waits for its worker, or the sentence that says why there is none."""
    if collection.active_config is None:
        return "The collection has no active search config."
    if sentence := problem(asked, collection) or too_few(counts(collection), asked.unjudged):
        return sentence
    try:
        with transaction.atomic():
            job = TrainingJob.objects.create(
                collection=collection,
                config=collection.active_config,
                requested_by_id=user.pk if user is not None and user.is_authenticated else None,
                settings=asked.as_json(),
            )
    except IntegrityError:
        return "A training of this collection is under way already."
    enqueue(job.pk)
    return job


def compare_again(checkpoint: Checkpoint) -> str:
    """Has the checkpoint checked and compared with the version active now. Returns why not, or
    ""."""
    if checkpoint.state == "retired":
        return "Its files are deleted."
    now = timezone.now()
    # Whoever asks may hold a row from before the last activation.
    collection = Collection.objects.get(pk=checkpoint.collection_id)
    ended = TrainingJob.objects.filter(
        pk=checkpoint.job_id,
        state__in=[TrainingState.DONE, TrainingState.FAILED, TrainingState.CANCELLED],
    )
    try:
        with transaction.atomic():
            asked = ended.update(
                state=TrainingState.REQUESTED,
                config_id=collection.active_config_id,
                attempts=0,
                cancel_requested=False,
                done=0,
                total=0,
                message="",
                # What it took goes on from here: the time it lay still was no work.
                started_at=Value(now, DateTimeField()) - (F("finished_at") - F("started_at")),
                finished_at=None,
                updated_at=now,
            )
    except IntegrityError:
        return "A training of this collection is under way already."
    if not asked:
        return "It is being compared already."
    enqueue(checkpoint.job_id)
    return ""


def cancel(job: TrainingJob) -> bool:
    """Ends the job, at once or at its worker's next step; False when it had ended."""
    waiting = TrainingJob.objects.filter(pk=job.pk, state=TrainingState.REQUESTED)
    now = timezone.now()
    if waiting.update(
        state=TrainingState.CANCELLED, message="Cancelled.", finished_at=now, updated_at=now
    ):
        clear(job)
        return True
    running = TrainingJob.objects.filter(pk=job.pk, state__in=UNDER_WAY)
    return bool(running.update(cancel_requested=True, updated_at=now))


def enqueue(job_id: int) -> None:
    """After the commit. A broker that is away loses nothing: the sweep finds what waits."""
    transaction.on_commit(partial(_send, job_id))


def _send(job_id: int) -> None:
    try:
        app.send_task(TASK, args=[job_id], queue=QUEUE, retry=False)
    except OperationalError as error:
        logger.warning("the broker did not take the training %d: %s", job_id, error)


# --- the clock ---------------------------------------------------------------------------------


def sweep() -> dict[str, int]:
    """Jobs whose worker went away wait again, or are given up; those whose message was lost are
    sent again."""
    now = timezone.now()
    with transaction.atomic():
        expired = TrainingJob.objects.filter(
            state__in=UNDER_WAY, lease_until__lt=now
        ).select_for_update(skip_locked=True, of=("self",))
        again: list[TrainingJob] = []
        hopeless: list[TrainingJob] = []
        cancelled: list[TrainingJob] = []
        for job in expired:
            if job.cancel_requested:
                cancelled.append(job)
            else:
                (again if job.attempts < MAX_ATTEMPTS else hopeless).append(job)
        freed: dict[str, Any] = {"lease_token": "", "lease_until": None, "updated_at": now}
        TrainingJob.objects.filter(pk__in=[job.pk for job in again]).update(
            state=TrainingState.REQUESTED, **freed
        )
        TrainingJob.objects.filter(pk__in=[job.pk for job in hopeless]).update(
            state=TrainingState.FAILED,
            finished_at=now,
            message=(
                f"The worker ended {MAX_ATTEMPTS} times during this training, most likely for "
                "lack of memory. Train a smaller base, or with LoRA."
            ),
            **freed,
        )
        # Its worker went before it saw that: no other one need begin again to see it.
        TrainingJob.objects.filter(pk__in=[job.pk for job in cancelled]).update(
            state=TrainingState.CANCELLED, message="Cancelled.", finished_at=now, **freed
        )
        for job in again:
            enqueue(job.pk)
    for job in (*hopeless, *cancelled):
        clear(job)
    return {"requeued": len(again), "given_up": len(hopeless), "sent_again": _send_again()}


def _send_again() -> int:
    before = timezone.now() - timedelta(seconds=_LOST_AFTER_SECONDS)
    waiting = TrainingJob.objects.filter(state=TrainingState.REQUESTED, updated_at__lt=before)
    ids = list(waiting.order_by("pk").values_list("pk", flat=True)[:100])
    try:
        if not ids or broker.connection().llen(QUEUE):
            return 0
    except broker.BrokerDown:
        return 0
    for job_id in ids:
        _send(job_id)
    return len(ids)
