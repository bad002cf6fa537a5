"""Trainings from the request to a checkpoint, in this process: a tiny base, real rows."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from django.utils import timezone

from searchapp import tasks
from searchapp.engine import local
from searchapp.models import Checkpoint, Collection, Document, Judgment, TrainingJob
from searchapp.models.corpus import AnyUser
from searchapp.search.erasing import erase_collection
from searchapp.training import hold, jobs, work
from searchapp.training.asked import Asked
from tests.fakes import FakeEmbedder
from tests.judged import make_judged, tiny
from tests.test_rerank.tiny import save_cross_encoder

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def quiet(
    settings: Any, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[int]]:
    """One thread, folders of its own, the tiny model as the reranker in use; what is sent to the
    workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.VAR_DIR = tmp_path / "var"
    settings.DEVICE = "cpu"
    # In bfloat16 rounding may outweigh what random weights make of a query.
    settings.RERANK_DTYPE = "float32"
    settings.RERANK_MODEL = str(base)
    sent: list[int] = []
    monkeypatch.setattr(jobs, "_send", sent.append)
    monkeypatch.setattr(hold, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(local, "_models", {})
    monkeypatch.setattr(local, "_refused", {})
    yield sent
    torch.set_num_threads(threads)


@pytest.fixture
def wetland() -> Collection:
    return make_judged()


def requested(collection: Collection, asked: Asked, user: AnyUser = None) -> TrainingJob:
    job = jobs.request_training(collection, user, asked)
    assert isinstance(job, TrainingJob), job
    return job


def run(job: TrainingJob, **options: Any) -> str:
    state = work.run(job.pk, embedder=FakeEmbedder(), **options)
    job.refresh_from_db()
    return state


def test_judgments_become_a_checkpoint_that_was_checked_and_compared(
    wetland: Collection, base: Path, quiet: list[int]
) -> None:
    job = requested(wetland, tiny(base))
    assert quiet == [job.pk]
    stages: list[str] = []
    assert run(job, watcher=lambda row: stages.append(row.stage)) == "done", job.message
    told = list(dict.fromkeys(stages))
    for stage in ("collecting", "judging", "scores", "pointwise training", "comparing"):
        assert work.STAGES[stage] in told
    assert len(job.figures["trained_keys"]) == len(job.figures["held_out_keys"]) * 3 == 30
    assert job.points["pointwise training"]["loss"]
    assert job.points["pointwise training"]["nDCG@10"]
    assert (job.lease_token, job.lease_until, job.stage) == ("", None, "")
    checkpoint = Checkpoint.objects.get()
    assert checkpoint.parity["passed"]
    # Random weights with one epoch rank far worse than the first stage, and are told so.
    assert checkpoint.state == "refused"
    assert "worse than the first stage alone, beyond chance" in job.message
    assert set(checkpoint.trained_on) == set(job.figures["trained_keys"])
    comparison = checkpoint.comparison
    assert set(comparison["systems"]) == {"hybrid", "active", "trained"}
    assert comparison["queries"] == 10 and comparison["judged_only"]
    assert comparison["systems"]["trained"]["model"] == f"checkpoint:{checkpoint.pk}"
    for gap in comparison["differences"].values():
        assert gap["low"] <= gap["difference"] <= gap["high"]
    assert checkpoint.manifest["steps"] > 0
    # Of the job's files only the checkpoint stays: the others hold texts.
    assert [path.name for path in job.folder.iterdir()] == ["checkpoint"]


def test_logged_searches_are_learnt_from_only_where_the_owner_allows_it(
    wetland: Collection, base: Path
) -> None:
    from searchapp.search import pipeline, traces

    for query in ("Otter of the  pond", "which bird waits", "who builds dams", "WHO builds dams"):
        traces.record(pipeline.start(query, wetland, user=None, embedder=FakeEmbedder()), None)
    asked = tiny(base, searches=True)
    assert "do not let" in str(jobs.request_training(wetland, None, asked))
    Collection.objects.update(train_on_searches=True)
    wetland.refresh_from_db()
    job = requested(wetland, asked)
    assert run(job) == "done", job.message
    # Asked twice is once, and what is judged is judged.
    assert job.figures["searches"] == 2
    assert "pairwise training" in job.points
    assert Checkpoint.objects.get().state in {"candidate", "refused"}


def test_what_is_missing_is_said_before_anything_runs(wetland: Collection, base: Path) -> None:
    cases = [
        (tiny(base, loss="hinge"), "no loss called “hinge”"),
        (tiny(base, epochs=0), "from 1 to 50"),
        (tiny(base, method="some"), "no way to train"),
        (Asked(base="checkpoint:7"), "no checkpoint 7"),
        (Asked(base="http+tei://x"), "endpoint cannot be trained"),
    ]
    for asked, sentence in cases:
        assert sentence in str(jobs.request_training(wetland, None, asked))
    Judgment.objects.filter(grade=0).delete()
    assert "there are 0. Judge wrong hits too" in str(
        jobs.request_training(wetland, None, tiny(base))
    )
    Judgment.objects.filter(query__startswith="heron").delete()
    Judgment.objects.filter(query__startswith="otter").delete()
    assert "with a relevant document; there are 24" in str(
        jobs.request_training(wetland, None, tiny(base, unjudged=True))
    )
    Judgment.objects.update(grade=0)
    assert "None of the 24 judged queries has a relevant document" in str(
        jobs.request_training(wetland, None, tiny(base))
    )
    Judgment.objects.all().delete()
    assert "nothing is judged yet" in str(jobs.request_training(wetland, None, tiny(base)))
    assert not TrainingJob.objects.exists()


def test_relevant_documents_that_are_not_found_are_counted(wetland: Collection, base: Path) -> None:
    job = requested(wetland, tiny(base))
    Document.objects.create(collection=wetland, title="far", path="far.txt", status="ready")
    Judgment.objects.filter(grade=3).update(path="far.txt")
    Judgment.objects.filter(grade=3, query__startswith="heron").update(path="renamed.txt")
    assert run(job) == "failed"
    assert (
        "0 of 40 are so: of 8 the relevant documents are no longer in the collection under the "
        "names they were judged by; of 32 the first stage brought no relevant document"
    ) in job.message
    assert not job.folder.exists()


def test_one_training_at_a_time_and_each_is_claimed_once(wetland: Collection, base: Path) -> None:
    job = requested(wetland, tiny(base))
    assert "under way already" in str(jobs.request_training(wetland, None, tiny(base)))
    other = make_judged("coast")
    assert isinstance(jobs.request_training(other, None, tiny(base)), TrainingJob)
    assert hold.claim(job.pk, lambda: False) is not None
    assert hold.claim(job.pk, lambda: False) is None
    assert tasks.train(job.pk) == "gone"


def test_a_waiting_training_is_cancelled_at_once_a_running_one_at_its_next_step(
    wetland: Collection, base: Path
) -> None:
    job = requested(wetland, tiny(base))
    assert jobs.cancel(job)
    assert not jobs.cancel(job)
    assert run(job) == "gone" and job.state == "cancelled"

    job = requested(wetland, tiny(base, epochs=50))

    def watch(row: TrainingJob) -> None:
        if row.stage == work.STAGES["pointwise training"] and row.done:
            assert jobs.cancel(row)

    hold.RENEW_SECONDS, before = 0.05, hold.RENEW_SECONDS
    try:
        assert run(job, watcher=watch) == "cancelled"
    finally:
        hold.RENEW_SECONDS = before
    assert job.message == "Cancelled." and job.finished_at is not None
    assert not job.folder.exists() and not Checkpoint.objects.exists()


def test_a_worker_that_ends_leaves_the_training_to_the_next_one(
    wetland: Collection, base: Path
) -> None:
    job = requested(wetland, tiny(base, epochs=2))
    seen: list[int] = []

    def watch(row: TrainingJob) -> None:
        if row.stage == work.STAGES["pointwise training"]:
            seen.append(row.done)

    assert run(job, watcher=watch, ending=lambda: sum(map(bool, seen)) > 2) == "requested"
    assert job.attempts == 0 and job.lease_token == ""
    steps = max(seen)
    again: list[int] = []

    def watch_again(row: TrainingJob) -> None:
        if row.stage == work.STAGES["pointwise training"] and row.total:
            again.append(row.done)

    assert run(job, watcher=watch_again) == "done", job.message
    assert again[0] >= steps, "it went on where it was"
    told = [step for step, _ in job.points["pointwise training"]["loss"]]
    assert told == sorted(set(told))


def test_the_clock_returns_what_a_dead_worker_held_and_gives_up_in_the_end(
    wetland: Collection, base: Path, quiet: list[int]
) -> None:
    job = requested(wetland, tiny(base))
    quiet.clear()
    for attempt in range(1, jobs.MAX_ATTEMPTS + 1):
        assert hold.claim(job.pk, lambda: False) is not None
        assert jobs.sweep()["requeued"] == 0, "the lease still runs"
        TrainingJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        swept = jobs.sweep()
        job.refresh_from_db()
        if attempt < jobs.MAX_ATTEMPTS:
            assert (swept["requeued"], job.state) == (1, "requested")
    assert quiet == [job.pk] * (jobs.MAX_ATTEMPTS - 1)
    assert job.state == "failed" and "ended 4 times" in job.message


def test_a_cancelled_training_whose_worker_died_ends_without_another_one(
    wetland: Collection, base: Path, quiet: list[int]
) -> None:
    job = requested(wetland, tiny(base))
    quiet.clear()
    assert hold.claim(job.pk, lambda: False) is not None
    assert jobs.cancel(job)
    job.folder.mkdir(parents=True)
    TrainingJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert jobs.sweep()["requeued"] == 0 and quiet == []
    job.refresh_from_db()
    assert (job.state, job.message) == ("cancelled", "Cancelled.")
    assert job.finished_at and not job.folder.exists()


def test_a_worker_thought_dead_writes_nothing_any_more(wetland: Collection, base: Path) -> None:
    job = requested(wetland, tiny(base))
    first = hold.claim(job.pk, lambda: False)
    assert first is not None
    TrainingJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    jobs.sweep()
    second = hold.claim(job.pk, lambda: False)
    assert second is not None
    with pytest.raises(hold.HoldLost):
        first.write(stage="mine")
    assert first.stopped() and not second.stopped()
    second.write(stage="mine")


def test_a_lost_message_is_sent_again(wetland: Collection, base: Path, quiet: list[int]) -> None:
    job = requested(wetland, tiny(base))
    assert jobs.sweep()["sent_again"] == 0
    TrainingJob.objects.update(updated_at=timezone.now() - timedelta(minutes=5))
    assert jobs.sweep()["sent_again"] == 1
    assert quiet == [job.pk, job.pk]


def test_a_full_disk_and_a_broken_base_end_in_a_sentence(
    wetland: Collection, base: Path, tmp_path: Path
) -> None:
    job = requested(wetland, tiny(tmp_path / "nowhere"))
    assert run(job) == "failed"
    assert "nowhere" in job.message and "Traceback" not in job.message
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("a stage failed")
    wrapped.__cause__ = full
    assert work.sentence_of(wrapped, job.pk).startswith("The disk is full.")
    assert "(KeyError)" in work.sentence_of(KeyError("x"), job.pk)
    assert "LoRA" in work.sentence_of(MemoryError(), job.pk)


def test_a_checkpoint_with_broken_scores_is_refused_and_cannot_be_activated(
    wetland: Collection, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchapp.training import registry, zelo_run

    def broken(job: TrainingJob, *_: Any, **__: Any) -> Path:
        """As a training whose last step went wrong would leave it."""
        from safetensors.torch import load_file, save_file

        place = job.folder / "run" / "checkpoint"
        shutil.copytree(base, place)
        weights = load_file(place / "model.safetensors")
        weights["classifier.weight"] = weights["classifier.weight"] * float("nan")
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
        (place / "manifest.json").write_text(json.dumps({"steps": 1}))
        return place

    monkeypatch.setattr(zelo_run, "train", broken)
    job = requested(wetland, tiny(base))
    assert run(job) == "done"
    checkpoint = Checkpoint.objects.get()
    assert checkpoint.state == "refused" and not checkpoint.parity["passed"]
    assert "It cannot serve" in checkpoint.reasons and str(job.folder) not in checkpoint.reasons
    assert not checkpoint.comparison
    outcome = registry.activate(checkpoint, None, "I like it")
    assert outcome.activation is None and "cannot serve" in outcome.problem
    wetland.refresh_from_db()
    assert wetland.active_config is not None and wetland.active_config.model == "default"


def test_erasing_a_collection_takes_its_trainings_and_their_files(
    wetland: Collection, base: Path
) -> None:
    job = requested(wetland, tiny(base))
    held = hold.claim(job.pk, lambda: False)
    assert held is not None
    job.folder.mkdir(parents=True)
    (job.folder / "candidates.jsonl").write_text("texts")
    erase_collection(wetland)
    assert not job.folder.parent.exists() and not TrainingJob.objects.exists()
    with pytest.raises(hold.HoldLost):
        held.write(stage="on")
