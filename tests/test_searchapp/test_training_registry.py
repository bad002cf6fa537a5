"""The decision: only a checked and compared checkpoint serves, and only its own collection."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from django.contrib.auth.models import User
from django.test import Client

from rerank.ranking.calibration import fit_platt
from rerank.ranking.calibration_file import ModelCalibration, save_model_calibration
from rerank.ranking.reliability import kept_word
from searchapp.engine import checkpoints, local, serving
from searchapp.engine.sockets import RerankJob, RerankOutcome
from searchapp.forms.tuning import DraftForm
from searchapp.models import Checkpoint, Collection, Passage, TrainingJob, TrainingState
from searchapp.search import configs, pipeline
from searchapp.search.calibrated import fitted_for
from searchapp.training import comparison, jobs, registry
from searchapp.training.counting import graded_queries
from tests.fakes import FakeEmbedder
from tests.judged import KINDS, PLACES, make_judged
from tests.test_rerank.tiny import save_cross_encoder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def own_engine(
    settings: Any, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.VAR_DIR = tmp_path / "var"
    settings.DEVICE = "cpu"
    settings.RERANK_MODEL = str(base)
    monkeypatch.setattr(jobs, "_send", lambda job_id: None)
    monkeypatch.setattr(local, "_models", {})
    monkeypatch.setattr(local, "_refused", {})
    monkeypatch.setattr(serving, "_examined", set())
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def wetland(db: None) -> Collection:
    return make_judged(user=User.objects.create_user("olive"))


def made(collection: Collection, base: Path, **fields: Any) -> Checkpoint:
    """A finished training's checkpoint, not judged yet."""
    job = TrainingJob.objects.create(
        collection=collection, config=collection.active_config, state=TrainingState.DONE
    )
    place = job.folder / "checkpoint"
    shutil.copytree(base, place)
    directory = f"{collection.pk}/{job.uid.hex}/checkpoint"
    return Checkpoint.objects.create(collection=collection, job=job, directory=directory, **fields)


def oracle(better: str) -> Any:
    """Answers for both rerankers: the model named `better` knows, the other puts things last."""

    def rerank(job: RerankJob) -> RerankOutcome:
        rows = Passage.objects.filter(pk__in=job.passage_ids)
        titles = dict(rows.values_list("pk", "document__title"))
        kind, place = next((k, p) for k in KINDS for p in PLACES if job.query == f"{k} of the {p}")
        sign = 1.0 if job.model == better else -1.0
        logits = [sign * (titles[each] == f"{kind} {place}") for each in job.passage_ids]
        relevance = [0.5 + each / 4 for each in logits]
        return RerankOutcome(
            "ok", logits=logits, relevance=relevance, model=job.model, inference_ms=7.0
        )

    return rerank


def keys(collection: Collection) -> list[str]:
    return [query.key for query in graded_queries(collection)][:12]


def compared(checkpoint: Checkpoint, better: str, judged_only: bool = True) -> dict[str, Any]:
    found = comparison.compare(
        checkpoint,
        keys(checkpoint.collection),
        FakeEmbedder(),
        judged_only=judged_only,
        rerank=oracle(better),
    )
    registry.compared(checkpoint, found)
    return found


def ready(collection: Collection, base: Path) -> Checkpoint:
    checkpoint = made(collection, base, parity={"passed": True, "checks": []})
    compared(checkpoint, checkpoint.model_name)
    return checkpoint


# --- the comparison ----------------------------------------------------------------------------


@pytest.mark.parametrize("judged_only", [True, False])
def test_a_better_checkpoint_is_measured_so_beside_both_others(
    wetland: Collection, base: Path, judged_only: bool
) -> None:
    checkpoint = made(wetland, base)
    found = compared(checkpoint, checkpoint.model_name, judged_only)
    systems, gaps = found["systems"], found["differences"]
    assert systems["trained"]["ndcg"] == systems["trained"]["mrr"] == 1.0
    assert systems["active"]["ndcg"] < systems["hybrid"]["ndcg"] <= 1.0
    assert gaps["active"]["low"] > 0
    assert gaps["active"]["better"] == found["queries"] == 12
    assert (systems["active"]["model"], systems["hybrid"]["ms_p50"]) == ("default", None)
    assert systems["trained"]["ms_p50"] == 7.0


def test_without_reranking_there_is_only_the_first_stage_to_beat(
    wetland: Collection, base: Path
) -> None:
    wetland.configs.update(rerank_depth=0)
    checkpoint = made(wetland, base, parity={"passed": True, "checks": []})
    found = compared(checkpoint, checkpoint.model_name)
    assert set(found["systems"]) == {"hybrid", "trained"} and found["depth"] == 100
    outcome = registry.activate(checkpoint, None, "It may try")
    assert outcome.activation is not None, outcome.problem
    assert outcome.activation.config.rerank_depth == 100


def test_a_query_that_cannot_be_reranked_ends_the_comparison(
    wetland: Collection, base: Path
) -> None:
    from searchapp.training.asked import CannotTrain

    checkpoint = made(wetland, base)
    with pytest.raises(CannotTrain, match=r"by the active reranker.*No rerank worker"):
        comparison.compare(
            checkpoint,
            keys(wetland),
            FakeEmbedder(),
            judged_only=True,
            rerank=lambda job: RerankOutcome("unavailable", "No rerank worker is running."),
        )
    with pytest.raises(CannotTrain, match="nothing can be compared"):
        comparison.compare(checkpoint, ["0" * 32], FakeEmbedder(), judged_only=True)


# --- the decision ------------------------------------------------------------------------------


def test_an_activated_checkpoint_serves_and_going_back_is_the_earlier_version(
    wetland: Collection, base: Path
) -> None:
    checkpoint = ready(wetland, base)
    olive = User.objects.get()
    draft = configs.draft_for(wetland, olive)
    before = wetland.active_config
    assert before is not None
    assert "Give a reason" in registry.activate(checkpoint, olive, " ").problem
    checkpoint.refresh_from_db()
    assert checkpoint.state == "candidate", "a refused activation changes nothing"
    outcome = registry.activate(checkpoint, olive, "Better by 0.4", before.pk)
    assert outcome.activation is not None, outcome.problem
    wetland.refresh_from_db()
    checkpoint.refresh_from_db()
    assert checkpoint.state == "active"
    active = wetland.active_config
    assert active is not None and active.model == f"checkpoint:{checkpoint.pk}"
    assert {change.field for change in configs.diff(before, active)} == {"model"}
    assert configs.open_draft(wetland) == draft, "an open draft stays as it is"
    assert registry.versions_with(checkpoint) == [active.version]

    result = pipeline.search(
        "otter of the lake",
        wetland,
        user=None,
        embedder=FakeEmbedder(),
        reranker=local.reranker(),
        deadline=time.time() + 60,
    )
    assert result.rerank.status == "ok", result.rerank.reason
    assert result.rerank.model == f"checkpoint:{checkpoint.pk}"
    assert "active, uses it" in registry.retire(checkpoint)

    assert configs.roll_back(wetland, before, olive, "Slower").activation is not None
    wetland.refresh_from_db()
    assert wetland.active_config == before
    # And forward again, without another comparison: it was decided once.
    assert configs.roll_back(wetland, active, olive, "Still better").activation is not None


def test_nobody_activates_what_was_not_compared_or_against_another_version(
    wetland: Collection, base: Path
) -> None:
    checkpoint = made(wetland, base)
    assert "not been checked" in registry.activate(checkpoint, None, "x").problem
    checkpoint.parity = {"passed": True, "checks": []}
    checkpoint.save()
    assert "not been compared" in registry.activate(checkpoint, None, "x").problem
    compared(checkpoint, checkpoint.model_name)
    assert wetland.active_config is not None
    configs.activate_changed(wetland, {"instruction": "Prefer birds."}, None, "birds")
    assert "compared with version 1" in registry.activate(checkpoint, None, "x").problem
    assert jobs.compare_again(checkpoint) == ""
    assert "being compared already" in jobs.compare_again(checkpoint)
    wetland.refresh_from_db()
    checkpoint = Checkpoint.objects.get()
    assert checkpoint.job.config == wetland.active_config
    compared(checkpoint, checkpoint.model_name)
    assert registry.activate(checkpoint, None, "x").activation is not None


def test_a_checkpoint_that_ranks_worse_beyond_chance_is_refused(
    wetland: Collection, base: Path
) -> None:
    checkpoint = made(wetland, base, parity={"passed": True, "checks": []})
    compared(checkpoint, "default")
    assert checkpoint.state == "refused"
    assert "worse than the reranker in use, beyond chance" in checkpoint.reasons
    assert "held-out queries" in registry.activate(checkpoint, None, "x").problem
    # Measured again it may turn out otherwise.
    compared(checkpoint, checkpoint.model_name)
    assert checkpoint.state == "candidate" and checkpoint.reasons == ""


def test_what_is_activated_while_it_is_compared_again_stays_activated(
    wetland: Collection, base: Path
) -> None:
    checkpoint = ready(wetland, base)
    before = wetland.active_config
    assert before is not None
    compared_row = Checkpoint.objects.get()
    outcome = registry.activate(checkpoint, None, "Better by 0.4", before.pk)
    assert outcome.activation is not None, outcome.problem
    # The worker has held its row since before that, and now finds it worse.
    compared(compared_row, "default")
    checkpoint.refresh_from_db()
    assert checkpoint.state == "active"
    version = outcome.activation.config
    wetland.refresh_from_db()
    assert configs.roll_back(wetland, before, None, "Slower").activation is not None
    wetland.refresh_from_db()
    assert configs.roll_back(wetland, version, None, "Still better").activation is not None


def test_a_failed_check_refuses_whatever_the_comparison_says(
    wetland: Collection, base: Path
) -> None:
    checkpoint = ready(wetland, base)
    failed = {"name": "order", "passed": False, "sentence": "Scores depend on the order."}
    idle = {"name": "golden", "passed": None, "sentence": "No scores are published."}
    checkpoint.parity = {"passed": False, "checks": [idle, failed]}
    registry._settle(checkpoint, "parity")
    assert checkpoint.state == "refused"
    problem = registry.activate(checkpoint, None, "x").problem
    assert problem == "It failed a check: Scores depend on the order."


def test_a_config_names_only_an_activated_checkpoint_of_its_own_collection(
    wetland: Collection, base: Path
) -> None:
    checkpoint = ready(wetland, base)
    other = make_judged("coast")
    draft = configs.draft_for(other, None)
    wrong = configs.save_draft(draft, {"model": checkpoint.model_name})
    assert wrong == {"model": f"This collection has no checkpoint {checkpoint.pk}."}
    own = configs.draft_for(wetland, None)
    wrong = configs.save_draft(own, {"model": checkpoint.model_name})
    assert "not activated yet" in wrong["model"]
    assert checkpoint.model_name not in dict(DraftForm(own).fields["model"].choices)  # type: ignore[attr-defined]
    Checkpoint.objects.update(state="active")
    assert configs.save_draft(own, {"model": checkpoint.model_name}) == {}
    assert checkpoint.model_name in dict(DraftForm(own).fields["model"].choices)  # type: ignore[attr-defined]
    assert configs.shown(own, "model") == f"checkpoint {checkpoint.pk}, trained here"


# --- the engine --------------------------------------------------------------------------------


def rerank_job(collection: Collection, model: str) -> RerankJob:
    ids = list(collection.passages.values_list("pk", flat=True)[:4])
    deadline = time.time() + 60
    return RerankJob("otter", "", ids, [0.5] * 4, deadline, model, collection.pk)


def test_a_checkpoint_serves_no_other_collection_and_not_once_refused_or_retired(
    wetland: Collection, base: Path
) -> None:
    checkpoint = made(wetland, base)
    model = checkpoint.model_name
    assert local.rerank(rerank_job(wetland, model)).model == model
    other = make_judged("coast")
    outcome = local.rerank(rerank_job(other, model))
    assert (outcome.code, outcome.logits) == ("no-model", ())
    assert outcome.reason == f"This collection has no checkpoint {checkpoint.pk}."
    for state in ("refused", "retired"):
        Checkpoint.objects.update(state=state)
        assert state in local.rerank(rerank_job(wetland, model)).reason
    for name in ("checkpoint:999999", "checkpoint:", "checkpoint:-1", "checkpoint:9" * 30):
        assert local.rerank(rerank_job(wetland, name)).status == "unavailable"


def test_missing_files_are_said_without_naming_their_directory(
    wetland: Collection, base: Path
) -> None:
    checkpoint = made(wetland, base)
    shutil.rmtree(checkpoint.path)
    reason = local.rerank(rerank_job(wetland, checkpoint.model_name)).reason
    assert reason.startswith(f"Checkpoint {checkpoint.pk} cannot be loaded: ")
    assert str(checkpoint.path.parent) not in reason


def test_only_so_many_checkpoints_are_held_in_memory(
    wetland: Collection, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MOST_LOADED", 2)
    rows = [made(wetland, base) for _ in range(3)]
    for row in [rows[0], rows[1], rows[0], rows[2]]:
        assert local.rerank(rerank_job(wetland, row.model_name)).status == "ok"
    assert local.rerank(rerank_job(wetland, "default")).status == "ok"
    held = {name for kind, name in local._models if kind == "scorer"}
    assert held == {rows[0].model_name, rows[2].model_name, str(base)}
    assert local.rerank(rerank_job(wetland, rows[1].model_name)).status == "ok"


def test_a_worker_checks_a_checkpoint_before_its_first_search(
    wetland: Collection, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchapp.engine import gate

    asked: list[str] = []
    real = gate.admit
    monkeypatch.setattr(gate, "admit", lambda *names: (asked.append(names[0]), real(*names))[1])
    checkpoint = made(wetland, base)
    for _ in range(2):
        serving.examine(checkpoint.model_name, wetland.pk)
    assert asked == [checkpoint.model_name]
    assert gate.report_path(local.load_reranker(checkpoint.model_name, wetland.pk).card).exists()


def test_deleting_a_checkpoints_files_ends_its_service(
    wetland: Collection, base: Path, django_capture_on_commit_callbacks: Any
) -> None:
    checkpoint = made(wetland, base, state="active")
    with django_capture_on_commit_callbacks(execute=True):
        assert registry.retire(checkpoint) == ""
    assert not checkpoint.job.folder.exists()
    checkpoint.refresh_from_db()
    assert checkpoint.state == "retired"
    assert jobs.compare_again(checkpoint) == "Its files are deleted."
    draft = configs.draft_for(wetland, None)
    wrong = configs.save_draft(draft, {"model": checkpoint.model_name})
    assert "files of checkpoint" in wrong["model"]


# --- the calibration it brings -----------------------------------------------------------------


def put_calibration(checkpoint: Checkpoint, labels: str) -> None:
    chance = np.random.default_rng(3)
    logits = chance.normal(size=400)
    grades = (chance.random(400) < 1 / (1 + np.exp(-3 * logits))).astype(float)
    queries = [number // 8 for number in range(400)]
    side = kept_word(np.clip(logits, 0, 1), grades, queries)
    report = {"method": "platt", "labels": labels, "unjudged_count": True, "before": side}
    report |= {"after": side, "queries": 50, "pairs": 400, "relevant": 200, "losses": {}}
    found = ModelCalibration(fit_platt(logits, grades), None, "Fitted.", report)
    save_model_calibration(checkpoint.path, found)


def test_an_activated_checkpoint_brings_the_map_its_training_fitted(
    wetland: Collection, base: Path, client: Client
) -> None:
    checkpoint = ready(wetland, base)
    put_calibration(checkpoint, "judgments")
    assert registry.activate(checkpoint, None, "Better").activation is not None
    fitted = fitted_for(wetland.pk, checkpoint.model_name)
    low, high = fitted.calibrated([-2.0, 2.0], [0.1, 0.9])
    assert low is not None and high is not None and low < 0.1 < 0.9 < high
    client.force_login(User.objects.get(username="olive"))
    page = client.get(f"/collections/{wetland.slug}/calibration/").content.decode()
    assert f"It came with checkpoint {checkpoint.pk}" in page
    assert "400" in page and "Calibrate again" in page


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_map_to_targets_or_a_broken_one_is_left_alone(
    wetland: Collection, base: Path, is_broken: bool
) -> None:
    checkpoint = ready(wetland, base)
    put_calibration(checkpoint, "targets")
    if is_broken:
        (checkpoint.path / "calibration.json").write_text("{}")
    assert registry.activate(checkpoint, None, "Better").activation is not None
    assert not wetland.calibrations.exists()
