"""The training page: who may, what it shows, what its buttons do."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.utils import timezone

from searchapp.engine import presence
from searchapp.models import Checkpoint, Collection, Judgment, TrainingJob, TrainingState
from searchapp.training import charts, jobs
from searchapp.training.curves import MOST_POINTS, Points, add
from tests.judged import make_judged
from tests.people import KINDS, People, make_people

URL = "/collections/wetland/training/"
STATUS = f"{URL}status/"

GAP = {"difference": 0.05, "low": 0.01, "high": 0.09, "p_value": 0.01, "better": 7, "worse": 1}
SYSTEM = {"model": "minilm", "ndcg": 0.61, "mrr": 0.58, "ms_p50": 12.0}


@pytest.fixture
def wetland(db: None) -> Collection:
    return make_judged()


@pytest.fixture
def people(wetland: Collection) -> People:
    return make_people(wetland)


@pytest.fixture(autouse=True)
def worker(settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A worker that is there; which jobs it was sent."""
    settings.MEDIA_ROOT = tmp_path
    sent: list[int] = []
    monkeypatch.setattr(jobs, "enqueue", sent.append)
    monkeypatch.setattr(presence, "is_served", lambda queue: queue == "training")
    return sent


def made(collection: Collection, **fields: Any) -> Checkpoint:
    """A checkpoint that was checked and compared with the active version, and is better."""
    from searchapp.search.configs import fingerprint

    job = TrainingJob.objects.create(
        collection=collection,
        config=collection.active_config,
        state=TrainingState.DONE,
        settings={"base": "", "epochs": 3, "method": "full", "loss": "mse", "seed": 4},
        figures={"trained_keys": ["a"] * 30, "held_out_keys": ["b"] * 10, "labels": 180},
        points={
            "pointwise training": {
                "loss": [[step, 0.4 / step] for step in range(1, 40)],
                "nDCG@10": [[0, 0.5], [20, 0.6], [39, 0.65]],
            }
        },
    )
    assert collection.active_config is not None
    comparison = {
        "queries": 10,
        "judged_only": True,
        "depth": 100,
        "config_version": collection.active_config.version,
        "fingerprint": fingerprint(collection.active_config),
        "systems": {"hybrid": {**SYSTEM, "ms_p50": None}, "active": SYSTEM, "trained": SYSTEM},
        "differences": {"active": GAP, "hybrid": {**GAP, "low": -0.01}},
    }
    values = {
        "directory": f"{collection.pk}/{job.uid.hex}/checkpoint",
        "parity": {"passed": True, "checks": [{"name": "finite", "passed": True}]},
        "comparison": comparison,
        "manifest": {"steps": 39, "seconds": 61.0, "metrics": {"nDCG@10": 0.65}},
        **fields,
    }
    return Checkpoint.objects.create(collection=collection, job=job, **values)


# --- who may -----------------------------------------------------------------------------------

MATRIX: list[tuple[str, str, dict[str, str], list[int]]] = [
    ("get", URL, {}, [403, 403, 403, 403, 200, 200]),
    ("get", STATUS, {}, [403, 403, 403, 403, 200, 200]),
    ("post", URL, {"action": "start", "epochs": "1"}, [403, 403, 403, 403, 302, 302]),
    ("post", URL, {"action": "cancel", "job": "1"}, [403, 403, 403, 403, 302, 302]),
    ("post", URL, {"action": "activate", "checkpoint": "99"}, [403, 403, 403, 403, 404, 404]),
    ("post", URL, {"action": "compare", "checkpoint": "99"}, [403, 403, 403, 403, 404, 404]),
    ("post", URL, {"action": "retire", "checkpoint": "x"}, [403, 403, 403, 403, 404, 404]),
    ("post", URL, {"action": "dance"}, [403] * 6),
    ("post", STATUS, {}, [405] * 6),
]


@pytest.mark.parametrize(("method", "url", "data", "statuses"), MATRIX)
def test_training_is_for_owners(
    people: People, method: str, url: str, data: dict[str, str], statuses: list[int]
) -> None:
    for kind, status in zip(KINDS, statuses, strict=True):
        response = getattr(people.client(kind), method)(url, data)
        assert response.status_code == status, kind


def test_a_private_collections_training_is_missing_for_strangers(people: People) -> None:
    Collection.objects.update(is_public=False)
    for url in (URL, STATUS):
        assert people.client("stranger").get(url).status_code == 404
        assert people.client("editor").get(url).status_code == 403
    assert people.client("owner", enforce_csrf_checks=True).post(URL).status_code == 403


def test_nobody_reaches_a_training_or_checkpoint_of_another_collection(people: People) -> None:
    other = make_judged("coast", is_public=False)
    checkpoint = made(other)
    foreign = TrainingJob.objects.create(collection=other, config=other.active_config)
    client = people.client("owner")
    for action in ("activate", "compare", "retire"):
        data = {"action": action, "checkpoint": str(checkpoint.pk), "reason": "mine now"}
        assert client.post(URL, data).status_code == 404
    client.post(URL, {"action": "cancel", "job": str(foreign.pk)})
    foreign.refresh_from_db()
    assert foreign.state == "requested" and not foreign.cancel_requested
    owner = people.users["owner"]
    assert not TrainingJob.objects.visible_to(owner).exists()
    assert not Checkpoint.objects.visible_to(people.users["editor"]).exists()
    assert f"Checkpoint {checkpoint.pk}" not in client.get(URL).content.decode()


# --- the buttons -------------------------------------------------------------------------------


def test_starting_makes_a_job_of_what_was_typed(people: People, worker: list[int]) -> None:
    client = people.client("owner")
    data = {"action": "start", "epochs": "5", "unjudged": "on", "loss": "listwise", "rate": "1e-4"}
    assert client.post(URL, data).status_code == 302
    job = TrainingJob.objects.get()
    assert worker == [job.pk] and job.requested_by == people.users["owner"]
    assert job.settings == {
        "base": "",
        "method": "full",
        "loss": "listwise",
        "epochs": 5,
        "seed": 0,
        "rate": 1e-4,
        "unjudged": True,
        "searches": False,
    }
    page = client.post(URL, data, follow=True).content.decode()
    assert "under way already" in page
    assert "Waiting for the training worker" in page and "Start the training" not in page
    assert client.post(URL, {"action": "cancel", "job": str(job.pk)}).status_code == 302
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert (
        "had ended already"
        in client.post(URL, {"action": "cancel", "job": str(job.pk)}, follow=True).content.decode()
    )


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"epochs": "0"}, "greater than or equal to 1"),
        ({"epochs": ""}, "This field is required"),
        ({"epochs": "1", "base": "/etc"}, "/etc is not one of the available choices"),
        ({"epochs": "1", "rate": "2"}, "less than or equal to 0.999"),
        ({"epochs": "1", "loss": "hinge"}, "hinge is not one of the available choices"),
    ],
)
def test_wrong_values_are_said_beside_their_field(
    people: People, typed: dict[str, str], sentence: str
) -> None:
    response = people.client("owner").post(URL, {"action": "start", **typed})
    assert response.status_code == 422
    assert sentence in response.content.decode()
    assert not TrainingJob.objects.exists()


def test_logged_searches_are_offered_only_where_the_settings_allow_it(people: People) -> None:
    client = people.client("owner")
    assert 'name="searches"' not in client.get(URL).content.decode()
    client.post(URL, {"action": "start", "epochs": "1", "searches": "on"})
    assert TrainingJob.objects.get().settings["searches"] is False
    TrainingJob.objects.all().delete()
    data = {"name": "Wetland", "language": "en", "is_public": "on", "train_on_searches": "on"}
    assert client.post("/collections/wetland/settings/", data).status_code == 302
    assert 'name="searches"' in client.get(URL).content.decode()


def test_activating_from_the_page_needs_a_reason_and_the_version_that_was_seen(
    people: People, wetland: Collection
) -> None:
    checkpoint = made(wetland)
    client = people.client("owner")
    active = wetland.active_config
    assert active is not None
    data = {"action": "activate", "checkpoint": str(checkpoint.pk), "active": str(active.pk)}
    refused = client.post(URL, {**data, "reason": " "})
    assert refused.status_code == 422 and "Give a reason" in refused.content.decode()
    assert client.post(URL, {**data, "reason": "Five points"}).status_code == 302
    wetland.refresh_from_db()
    assert wetland.active_config is not None
    assert wetland.active_config.model == checkpoint.model_name
    act = wetland.activations.first()
    assert act is not None and act.reason == "Five points"
    page = client.get(URL).content.decode()
    assert "in use" in page and "Version 2 reranks with it" in page
    assert "trained here" in client.get("/collections/wetland/tuning/").content.decode()
    stays = client.post(URL, {"action": "retire", "checkpoint": str(checkpoint.pk)}, follow=True)
    assert "Activate another version first" in stays.content.decode()


def test_whoever_activates_second_is_told_why_not_and_once(
    people: People, wetland: Collection
) -> None:
    first, second = made(wetland), made(wetland)
    owner, admin = people.client("owner"), people.client("superuser")
    data = {"action": "activate", "reason": "better", "active": str(wetland.active_config_id)}
    assert owner.post(URL, {**data, "checkpoint": str(first.pk)}).status_code == 302
    same = admin.post(URL, {**data, "checkpoint": str(first.pk)})
    assert same.status_code == 422
    assert same.content.decode().count("Version 2, which is active, uses it.") == 1
    other = admin.post(URL, {**data, "checkpoint": str(second.pk)})
    assert other.status_code == 422
    card = other.content.decode().split(f'id="checkpoint-{second.pk}"')[1].split("</article>")[0]
    assert card.count("another one is active now. Compare it again") == 1


def test_comparing_again_long_after_neither_takes_days_nor_hides_how_it_ended(
    people: People, wetland: Collection
) -> None:
    older, newer = made(wetland), made(wetland)
    then = timezone.now() - timedelta(days=3)
    TrainingJob.objects.update(started_at=then, finished_at=then + timedelta(minutes=5))
    client = people.client("owner")
    client.post(URL, {"action": "compare", "checkpoint": str(older.pk)})
    job = TrainingJob.objects.get(pk=older.job_id)
    assert 300 <= (job.seconds_taken or 0) < 360
    TrainingJob.objects.filter(pk=job.pk).update(
        state="failed", message="Nothing can be compared.", finished_at=timezone.now()
    )
    page = client.get(URL).content.decode()
    assert "The last training came to nothing. Nothing can be compared." in page
    assert "72 h" not in page and newer.job_id > job.pk


def test_cancelling_what_nobody_has_begun_says_that_it_is_over(
    people: People, wetland: Collection
) -> None:
    job = TrainingJob.objects.create(collection=wetland, config=wetland.active_config)
    data = {"action": "cancel", "job": str(job.pk)}
    page = people.client("owner").post(URL, data, follow=True).content.decode()
    assert "The training is cancelled. Nothing is changed." in page


def test_a_base_of_a_directory_shows_its_name_alone(people: People, wetland: Collection) -> None:
    checkpoint = made(wetland)
    settings = {**checkpoint.job.settings, "base": "/srv/models/small-one", "epochs": 1}
    TrainingJob.objects.update(settings=settings)
    page = people.client("owner").get(URL).content.decode()
    assert "small-one" in page and "/srv/models" not in page
    assert "1 epochs" not in page


def test_a_refused_checkpoint_offers_no_activation(people: People, wetland: Collection) -> None:
    made(wetland, state="refused", reasons="It failed a check: it lies.", parity={"passed": False})
    page = people.client("owner").get(URL).content.decode()
    assert "It failed a check: it lies." in page and 'value="activate"' not in page
    Checkpoint.objects.all().delete()
    stale = made(wetland)
    stale.comparison["fingerprint"] = "0" * 16
    stale.save()
    page = people.client("owner").get(URL).content.decode()
    assert "Compare it again, then decide" in page and 'value="activate"' not in page


# --- what it shows -----------------------------------------------------------------------------


def test_the_page_says_what_is_missing_before_a_training(people: People) -> None:
    client = people.client("owner")
    Judgment.objects.exclude(query__startswith="heron").delete()
    page = client.get(URL).content.decode()
    assert "there are 8" in page and "disabled" in page
    Judgment.objects.all().delete()
    assert "nothing is judged yet" in client.get(URL).content.decode()


def test_a_checkpoint_that_changes_nothing_is_not_called_worse(
    people: People, wetland: Collection
) -> None:
    row = made(wetland)
    same = {**GAP, "difference": 0.0, "low": 0.0, "high": 0.0}
    row.comparison["differences"] = {"active": same, "hybrid": same}
    row.save()
    page = people.client("owner").get(URL).content.decode()
    assert "Each held-out query is ranked as well as by version 1." in page
    assert "Each held-out query is ranked as well as by the first stage alone." in page
    assert "worse by" not in page


def test_the_page_of_a_job_under_way_shows_progress_and_curves(
    people: People, wetland: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = made(wetland).job.points
    job = TrainingJob.objects.create(
        collection=wetland,
        config=wetland.active_config,
        state=TrainingState.RUNNING,
        stage="Training the reranker",
        done=20,
        total=40,
        rate=31.25,
        seconds_left=150.0,
        points=points,
        settings={"epochs": 2},
    )
    client = people.client("owner")
    page = client.get(STATUS).content.decode()
    for said in ("20 of 40", "31.2 pairs a second", "2 min left", 'data-active="1"', "<svg"):
        assert said in page
    assert "<noscript> Reload it" in page, "without scripts nothing moves by itself"
    assert "Loss of the reranker: 0.400 at step 1, 0.010 at step 39, lowest 0.010." in page
    TrainingJob.objects.filter(pk=job.pk).update(rate=0.05)
    assert "3.0 pairs a minute" in client.get(STATUS).content.decode()
    monkeypatch.setattr(presence, "is_served", lambda queue: False)
    assert "No training worker is running" in client.get(URL).content.decode()
    jobs.cancel(job)
    assert "ends at its next step" in client.get(STATUS).content.decode()
    TrainingJob.objects.filter(pk=job.pk).update(state="failed", message="The disk is full.")
    page = client.get(STATUS).content.decode()
    assert 'data-active="0"' in page and "The disk is full." in page


def test_pages_of_many_checkpoints_ask_few_questions(
    people: People, wetland: Collection, django_assert_max_num_queries: Any
) -> None:
    for _ in range(6):
        made(wetland)
    with django_assert_max_num_queries(40):
        assert people.client("owner").get(URL).status_code == 200


def test_administrators_read_trainings_and_checkpoints(people: People, wetland: Collection) -> None:
    checkpoint = made(wetland)
    client = people.client("superuser")
    for url in (
        "/admin/searchapp/checkpoint/",
        "/admin/searchapp/trainingjob/",
        f"/admin/searchapp/checkpoint/{checkpoint.pk}/change/",
        f"/admin/searchapp/trainingjob/{checkpoint.job_id}/change/",
    ):
        assert client.get(url).status_code == 200


# --- the command -------------------------------------------------------------------------------


def test_the_command_asks_for_a_training(
    wetland: Collection, worker: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("train", "wetland", "--epochs", "2", "--loss", "bce", "--seed", "7")
    job = TrainingJob.objects.get()
    assert worker == [job.pk]
    assert (job.settings["loss"], job.settings["epochs"], job.settings["seed"]) == ("bce", 2, 7)
    assert "/collections/wetland/training/" in capsys.readouterr().out
    with pytest.raises(CommandError, match="under way already"):
        call_command("train", "wetland")
    with pytest.raises(CommandError, match="no collection 'sea'"):
        call_command("train", "sea")


def test_waiting_for_a_training_shows_its_comparison_or_why_there_is_none(
    wetland: Collection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = [("done", ""), ("failed", "The disk is full.")]

    def work_on(job_id: int) -> None:
        state, message = ends.pop(0)
        checkpoint = made(wetland)
        Checkpoint.objects.filter(pk=checkpoint.pk).update(job_id=job_id)
        TrainingJob.objects.filter(pk=job_id).update(state=state, message=message)

    monkeypatch.setattr(jobs, "enqueue", lambda job_id: None)
    real = jobs.request_training

    def request(*args: Any) -> Any:
        job = real(*args)
        work_on(job.pk)
        return job

    monkeypatch.setattr(jobs, "request_training", request)
    call_command("train", "wetland", "--wait")
    said = capsys.readouterr().out
    assert "+0.050 (+0.010 to +0.090)" in said and "waits for a decision" in said
    for name in ("the first stage alone", "version 1", f"checkpoint {Checkpoint.objects.get().pk}"):
        assert f"\n{name} " in said, "the same names as on the page"
    with pytest.raises(CommandError, match="The disk is full"):
        call_command("train", "wetland", "--wait")


def test_interrupting_the_command_cancels_the_training(
    wetland: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchapp.management.commands import train

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train.time, "sleep", interrupted)
    with pytest.raises(CommandError, match="Cancelled; nothing is changed"):
        call_command("train", "wetland", "--wait")
    assert TrainingJob.objects.get().state == "cancelled"


@pytest.mark.django_db(transaction=True)
def test_waiting_outlives_a_restart_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from searchapp.management.commands import train

    make_judged()
    cut: list[float] = []

    def restarted(seconds: float) -> None:
        if cut:
            TrainingJob.objects.update(state="failed", message="So it ended.")
            return
        cut.append(seconds)
        with connection.cursor() as cursor, suppress(OperationalError):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(train.time, "sleep", restarted)
    with pytest.raises(CommandError, match="So it ended"):
        call_command("train", "wetland", "--wait")
    assert len(cut) == 1


# --- pictures ----------------------------------------------------------------------------------


def test_points_of_a_curve_lie_where_their_numbers_are() -> None:
    points: Points = {"pointwise training": {"nDCG@10": [[0, 0.5], [10, 0.6]]}}
    (curve,) = charts.curves(points)
    frame = curve.frame
    assert (curve.dots[0][0], curve.dots[-1][0]) == (frame.left, frame.right)
    assert [tick.label for tick in frame.x_ticks] == ["0", "5", "10"]
    assert frame.y_ticks[0].label == "0.5" and frame.y_ticks[-1].label == "0.6"
    assert curve.dots[1][1] == frame.top
    assert "0.500 at step 0, 0.600 at step 10, highest 0.600" in curve.sentence
    flat: Points = {"x": {"loss": [[1, 0.0], [2, 0.0]]}}
    assert charts.curves(flat)[0].frame.y_ticks


def test_a_curve_that_has_just_begun_repeats_and_invents_nothing() -> None:
    begun: Points = {"pointwise training": {"nDCG@10": [[0, 1.0]], "loss": [[1, 4.0], [3, 2.0]]}}
    loss, quality = charts.curves(begun)
    assert quality.sentence.endswith("reranker: 1.000 at step 0.")
    assert max(float(tick.label) for tick in quality.frame.y_ticks) == 1
    assert [tick.label for tick in loss.frame.x_ticks] == ["0", "3"]


def test_a_difference_of_nothing_lies_in_the_middle() -> None:
    found = charts.difference({"difference": 0.0, "low": -0.1, "high": 0.1}, "version 1")
    assert found.zero_x == found.middle_x == found.width / 2
    assert found.low_x == pytest.approx(found.width - found.high_x)
    assert "-0.100 to +0.100" in found.sentence


def test_curves_stay_short_and_repeated_steps_replace_the_old_ones() -> None:
    points: Points = {}
    for step in range(1, 2000):
        assert add(points, "x", {"event": "step", "step": step, "loss": 1 / step})
    curve = points["x"]["loss"]
    assert len(curve) <= MOST_POINTS
    assert curve[0][0] == 1 and curve[-1][0] == 1999
    add(points, "x", {"event": "step", "step": 1000, "loss": 5.0})
    assert curve[-1] == [1000.0, 5.0] and curve[-2][0] < 1000
    assert not add(points, "x", {"event": "step", "step": 3, "loss": float("nan")})
    assert not add(points, "x", {"event": "started"})
    add(points, "x", {"event": "validation", "step": 1000, "nDCG@10": 0.5})
    add(points, "x", {"event": "validation", "step": 2000, "metrics": {"nDCG@10": 0.6}})
    assert points["x"]["nDCG@10"] == [[1000.0, 0.5], [2000.0, 0.6]]


def test_the_author_of_a_job_may_be_gone(people: People, wetland: Collection) -> None:
    checkpoint = made(wetland)
    TrainingJob.objects.filter(pk=checkpoint.job_id).update(requested_by=people.users["owner"])
    User.objects.filter(pk=people.users["owner"].pk).delete()
    assert people.client("superuser").get(URL).status_code == 200
