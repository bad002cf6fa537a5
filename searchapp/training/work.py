"""One training in its worker: collecting, training, checking, comparing."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

from django.utils import timezone

from rerank.errors import RerankError
from searchapp.engine import local
from searchapp.engine.sockets import EmbedSocket
from searchapp.models import Checkpoint, TrainingJob, TrainingState
from searchapp.search import pipeline

from . import comparison, registry
from .asked import CannotTrain, Stopped, from_json
from .comparison import Rerank
from .curves import add
from .export import Figures, export
from .hold import Hold, HoldLost, claim
from .registry import clear

logger = logging.getLogger(__name__)

# The stages of rerank.zelo.run, and our own around it, for people.
STAGES = {
    "pairs": "Choosing which documents to compare",
    "judging": "Comparing them by their grades",
    "preferences": "Weighing the comparisons",
    "scores": "Turning comparisons into scores",
    "pairwise training": "Training the judge of pairs",
    "pairwise judging": "Judging what people searched for",
    "pointwise training": "Training the reranker",
    "second pass": "Looking for failures",
    "calibration": "Finding out what its scores are worth",
    "checkpoint": "Storing the reranker",
    "collecting": "Searching the judged queries",
    "checking": "Checking the new reranker",
    "comparing": "Comparing on the held-out queries",
}
# Their rate is of pairs of query and document, not of steps.
TRAINING_STAGES = {STAGES["pairwise training"], STAGES["pointwise training"]}

Watcher = Callable[[TrainingJob], None]


def run(
    job_id: int,
    *,
    ending: Callable[[], bool] = lambda: False,
    embedder: EmbedSocket | None = None,
    rerank: Rerank = local.rerank,
    watcher: Watcher = lambda job: None,
) -> str:
    """Carries out a waiting job in this process; its state afterwards, "gone" where it waits no
    more, "lost" where another worker has it. Never raises for what its row can say. `ending`: this
    process is to end; the job then waits for the next one, which goes on where this one was."""
    hold = claim(job_id, ending)
    if hold is None:
        return "gone"
    try:
        with hold.kept():
            _Work(hold, embedder, rerank, watcher).through()
    except HoldLost:
        return _lost(hold)
    except Exception as error:
        try:
            _end(hold, error)
        except HoldLost:
            return _lost(hold)
    watcher(hold.job)
    return hold.job.state


def _lost(hold: Hold) -> str:
    """Another worker may be at work in the folder, unless the collection was erased."""
    if not TrainingJob.objects.filter(pk=hold.job.pk).exists():
        clear(hold.job)
    return "lost"


def _end(hold: Hold, error: Exception) -> None:
    if isinstance(error, Stopped):
        if hold.is_lost:
            raise HoldLost
        if hold.is_cancelled:
            hold.release(TrainingState.CANCELLED, message="Cancelled.")
            return clear(hold.job)
        # Not this job's fault, so it is not counted against it.
        attempts = max(hold.job.attempts - 1, 0)
        return hold.release(TrainingState.REQUESTED, attempts=attempts)
    hold.release(TrainingState.FAILED, message=sentence_of(error, hold.job.pk))
    clear(hold.job)


def sentence_of(error: Exception, job_id: int) -> str:
    """What went wrong, for the reader of the page."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return "The disk is full. Make room on it, then train again; nothing else was changed."
        cause = cause.__cause__
    if isinstance(error, CannotTrain | RerankError | pipeline.BadQuery):
        return str(error)
    logger.error("training %d failed", job_id, exc_info=error)
    if isinstance(error, MemoryError):
        return "The memory did not suffice. Train a smaller base, or with LoRA."
    return f"The training failed ({type(error).__name__}). The worker’s log says more."


class _Work:
    def __init__(
        self, hold: Hold, embedder: EmbedSocket | None, rerank: Rerank, watcher: Watcher
    ) -> None:
        self.hold, self.job = hold, hold.job
        self.asked = from_json(self.job.settings)
        self._embedder, self.rerank, self.watcher = embedder, rerank, watcher
        self.points = dict(self.job.points)

    def through(self) -> None:
        checkpoint = Checkpoint.objects.filter(job=self.job).first()
        if checkpoint is None:
            figures = self._export()
            checkpoint = self._train(figures)
        self._enter("checking", TrainingState.RUNNING)
        registry.examine(checkpoint)
        if checkpoint.parity["passed"]:
            self._compare(checkpoint)
        self.hold.release(TrainingState.DONE, message=checkpoint.reasons)
        clear(self.job)

    def _export(self) -> Figures:
        self._enter("collecting", TrainingState.EXPORTING)
        figures = export(
            self.job,
            self.asked,
            self._embed(),
            on_progress=self._progress,
            stopped=self.hold.stopped,
        )
        self.hold.write(figures=figures.as_json())
        return figures

    def _train(self, figures: Figures) -> Checkpoint:
        from . import zelo_run

        self._enter("pairs", TrainingState.RUNNING)
        directory = zelo_run.train(
            self.job, self.asked, on_event=self._event, stopped=self.hold.stopped
        )
        self.hold.progress(at_once=True, points=self.points)
        return registry.register(self.job, directory, figures.trained_keys)

    def _compare(self, checkpoint: Checkpoint) -> None:
        self._enter("comparing", TrainingState.RUNNING)
        # Another version may have become active while this one was trained.
        checkpoint.refresh_from_db()
        found = comparison.compare(
            checkpoint,
            self.job.figures["held_out_keys"],
            self._embed(),
            judged_only=not self.asked.unjudged,
            rerank=self.rerank,
            on_progress=self._progress,
            stopped=self.hold.stopped,
        )
        registry.compared(checkpoint, found)

    def _embed(self) -> EmbedSocket:
        if self._embedder is None:
            if self.job.config.dense_depth:
                local.warm_up_embedder()  # else the first queries would wait for the model to load
            self._embedder = local.embedder()
        return self._embedder

    def _enter(self, stage: str, state: str) -> None:
        if self.hold.stopped():
            raise Stopped
        self.hold.write(
            state=state, stage=STAGES[stage], done=0, total=0, rate=None, seconds_left=None
        )
        self._rate = _Rate()
        self.watcher(self.job)

    def _progress(self, done: int, total: int) -> None:
        self.hold.progress(done == total, done=done, total=total, **self._rate.of(done, total))
        self.watcher(self.job)

    def _event(self, event: Any) -> None:
        """Of rerank.zelo.run (watching.Event)."""
        stage = STAGES.get(event.stage, event.stage.capitalize())
        is_new = stage != self.job.stage
        changes: dict[str, Any] = {"stage": stage}
        if event.state in {"progress", "training"} and event.total:
            changes.update(done=event.done, total=event.total)
            # A validation between two steps tells neither; what was told before still holds.
            if event.rate or is_new:
                changes.update(rate=event.rate, seconds_left=event.eta_seconds)
        elif is_new:
            changes.update(done=0, total=0, rate=None, seconds_left=None)
        if event.training is not None and add(self.points, event.stage, event.training):
            changes["points"] = self.points
        self.hold.progress(is_new, **changes)
        self.watcher(self.job)


class _Rate:
    """Units a second since the stage began, and the seconds left."""

    def __init__(self) -> None:
        self._since = timezone.now()

    def of(self, done: int, total: int) -> dict[str, float | None]:
        seconds = (timezone.now() - self._since).total_seconds()
        rate = done / seconds if done and seconds > 0 else None
        return {"rate": rate, "seconds_left": (total - done) / rate if rate else None}
