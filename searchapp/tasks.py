"""Celery tasks: ids in, one call, outcome out. The work is in the modules they call."""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any

from celery import bootsteps, shared_task
from celery.signals import worker_shutting_down

from searchapp.celery import app
from searchapp.embedded.children import yield_to_others
from searchapp.engine import serving, warmup

__all__ = ["warmup"]  # imported for the worker signals it listens to

# Everything else comes before a training.
TRAINING_NICENESS = 15

_stopping = threading.Event()
# One byte that a worker shares with the processes of its pool, which get no such signal.
_stopping_pool = mmap.mmap(-1, 1)


@worker_shutting_down.connect
def stop_long_work(**_: Any) -> None:
    _stopping.set()
    _stopping_pool[0] = 1


class StopLongWork(bootsteps.StartStopStep):
    """For an end without a signal: Celery gives up when it cannot reach the broker any more, and
    then waits for what the worker has in hand."""

    def close(self, parent: Any) -> None:
        stop_long_work()


app.steps["worker"].add(StopLongWork)


# --- gpu ---------------------------------------------------------------------------------------


@shared_task(queue="gpu", acks_late=False)
def rerank_passages(ticket: str, message: dict[str, Any]) -> str:
    return serving.answer_rerank(ticket, message)


@shared_task(queue="gpu", acks_late=False)
def rerank_texts(ticket: str, message: dict[str, Any]) -> str:
    return serving.answer_texts(ticket, message)


@shared_task(queue="gpu", acks_late=False)
def calibrate(calibration_id: int) -> str:
    from searchapp.workbench import calibrating

    return calibrating.run(calibration_id, stopped=_stopping.is_set)


# --- embed -------------------------------------------------------------------------------------


@shared_task(queue="embed", acks_late=False)
def embed_query(ticket: str, text: str, model: str, deadline: float) -> str:
    return serving.answer_query(ticket, text, model, deadline)


@shared_task(queue="embed", acks_late=False)
def embed_texts(ticket: str, model: str, as_queries: bool, deadline: float) -> str:
    return serving.answer_vectors(ticket, model, as_queries, deadline)


@shared_task(queue="embed")
def embed_pending() -> int:
    from searchapp.ingest import embedding

    return embedding.pump(stopped=_stopping.is_set)


# --- training ----------------------------------------------------------------------------------


@shared_task(queue="training", acks_late=False, bind=True)
def train(self: Any, job_id: int) -> str:
    from searchapp.training import work

    if not self.request.called_directly:
        # The pool's process ends with its task; the worker's own does next to nothing.
        yield_to_others(os.getpid(), TRAINING_NICENESS)
    return work.run(job_id, ending=lambda: bool(_stopping_pool[0]))


# --- default -----------------------------------------------------------------------------------


@shared_task(queue="default")
def ingest_upload(upload_id: int) -> str:
    from searchapp.ingest import pipeline

    return pipeline.ingest(upload_id)


@shared_task(queue="default", acks_late=False)
def sweep_uploads() -> dict[str, int]:
    from searchapp.ingest import control

    return control.sweep()


@shared_task(queue="default", acks_late=False)
def sweep_trainings() -> dict[str, int]:
    from searchapp.training import jobs

    return jobs.sweep()


@shared_task(queue="default", acks_late=False)
def merge_all_segments() -> int:
    from searchapp.search import segments

    return segments.merge_all_segments()


@shared_task(queue="default", acks_late=False)
def build_ann_indexes() -> int:
    from searchapp.search import ann

    return ann.build_missing_ann_indexes()


@shared_task(queue="default", acks_late=False)
def forget_old_traces() -> int:
    from searchapp.search import traces

    return traces.forget_old()


@shared_task(queue="default", acks_late=False)
def forget_old_usage() -> int:
    from searchapp.api import usage

    return usage.forget_old()
