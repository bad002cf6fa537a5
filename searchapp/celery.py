"""The Celery app and its queues.

default  parse, index, merge, sweep: no torch
embed    query vectors first, passage vectors between them
gpu      reranking
training rerankers of the collections; torch comes with the first job and goes with it
"""

import os
import signal
from typing import Any

from celery import Celery
from celery.signals import beat_embedded_init, worker_process_init
from kombu import Queue  # type: ignore[attr-defined]

from searchapp.embedded.daemon import die_with_parent

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "searchapp.settings")

app = Celery("podium")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue(name) for name in ("default", "embed", "gpu", "training")]  # type: ignore[no-untyped-call]
# Sent by the default worker that runs with -B. A late one is dropped: the next follows at once.
app.conf.beat_schedule = {
    "sweep uploads": {
        "task": "searchapp.tasks.sweep_uploads",
        "schedule": 10.0,
        "options": {"queue": "default", "expires": 10},
    },
    "sweep trainings": {
        "task": "searchapp.tasks.sweep_trainings",
        "schedule": 15.0,
        "options": {"queue": "default", "expires": 15},
    },
    "merge segments": {
        "task": "searchapp.tasks.merge_all_segments",
        "schedule": 20.0,
        "options": {"queue": "default", "expires": 20},
    },
    "build vector indexes": {
        "task": "searchapp.tasks.build_ann_indexes",
        "schedule": 60.0,
        "options": {"queue": "default", "expires": 60},
    },
    "forget old traces": {
        "task": "searchapp.tasks.forget_old_traces",
        "schedule": 3600.0,
        "options": {"queue": "default", "expires": 3600},
    },
    "forget old usage": {
        "task": "searchapp.tasks.forget_old_usage",
        "schedule": 3600.0,
        "options": {"queue": "default", "expires": 3600},
    },
}
app.autodiscover_tasks(["searchapp"])


@worker_process_init.connect
@beat_embedded_init.connect
def end_with_the_worker(**_: Any) -> None:
    """A worker killed outright takes its pool and its clock with it."""
    if ask := die_with_parent(signal.SIGKILL):
        ask()
