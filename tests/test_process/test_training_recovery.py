"""A training worker killed outright in the middle of a training: the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from searchapp.engine import broker
from searchapp.models import Checkpoint, SearchConfig, TrainingJob
from searchapp.training import jobs
from searchapp.training.work import STAGES
from tests.judged import make_judged, tiny
from tests.test_rerank.tiny import save_cross_encoder

from .test_ingest_recovery import ROOT, database_url, wait_for

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]


@contextmanager
def training_worker(folder: Path, base: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "searchapp", "worker", "-Q", "training"]
    with (folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [*command, "-c", "1", "--max-tasks-per-child=1", "--without-gossip"],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url(),
                "REDIS_URL": django_settings.REDIS_URL,
                "MEDIA_ROOT": str(folder / "media"),
                "VAR_DIR": str(folder / "var"),
                "RERANK_MODEL": str(base),
                "DEVICE": "cpu",
                # In bfloat16 rounding may outweigh what random weights make of a query, and then
                # the checkpoint is rightly refused before it is compared.
                "RERANK_DTYPE": "float32",
                "OMP_NUM_THREADS": "1",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(90)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def steps() -> float:
    """How far the reranker's training is."""
    job = TrainingJob.objects.latest("pk")
    curve = job.points.get("pointwise training", {}).get("loss", [])
    return float(curve[-1][0]) if curve else 0.0


def test_a_killed_training_goes_on_and_one_that_is_cancelled_or_put_off_ends_at_a_step(
    settings: Any, tmp_path: Path
) -> None:
    broker.connection().delete("training")
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.RERANK_MODEL = ""
    base = save_cross_encoder(tmp_path / "tiny", num_hidden_layers=1)
    collection = make_judged()
    SearchConfig.objects.update(dense_depth=0)
    collection.refresh_from_db()
    job = jobs.request_training(collection, None, tiny(base, epochs=20))
    assert isinstance(job, TrainingJob), job

    with training_worker(tmp_path, base) as worker:
        # States to go on from are stored while it trains.
        wait_for(lambda: steps() > 10 and any(job.folder.rglob("state.pt")), 300)
        family = psutil.Process(worker.pid).children(recursive=True)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == [], "the pool's process ends with its worker"
    job.refresh_from_db()
    assert job.state == "running" and not Checkpoint.objects.exists()
    before = steps()
    assert jobs.sweep()["requeued"] == 0, "the lease still runs"
    TrainingJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))  # time goes by
    assert jobs.sweep()["requeued"] == 1

    with training_worker(tmp_path, base) as worker:
        wait_for(lambda: TrainingJob.objects.get().state in {"done", "failed"}, 400)
        job.refresh_from_db()
        assert (job.state, job.attempts) == ("done", 2), job.message
        told = [step for step, _ in job.points["pointwise training"]["loss"]]
        assert told == sorted(set(told)) and told[-1] > before
        checkpoint = Checkpoint.objects.get()
        assert checkpoint.parity["passed"], checkpoint.reasons
        assert checkpoint.comparison["queries"] == 10

        second = jobs.request_training(collection, None, tiny(base, epochs=50, seed=1))
        assert isinstance(second, TrainingJob)
        wait_for(lambda: steps() > 4, 300)
        assert jobs.cancel(second)
        wait_for(lambda: TrainingJob.objects.latest("pk").state == "cancelled", 90)
        wait_for(lambda: not second.folder.exists(), 10)

        third = jobs.request_training(collection, None, tiny(base, epochs=50, seed=2))
        assert isinstance(third, TrainingJob)
        wait_for(lambda: steps() > 4, 300)
        assert TrainingJob.objects.latest("pk").stage == STAGES["pointwise training"]
        worker.terminate()
        worker.wait(90)
    third.refresh_from_db()
    assert (third.state, third.attempts, third.lease_token) == ("requested", 0, "")
    assert any(third.folder.rglob("state.pt")), "the next worker goes on from here"
