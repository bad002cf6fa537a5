"""The training page in a real browser: with and without scripts, every width, by keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User

from searchapp.engine import presence
from searchapp.models import Checkpoint, Collection, Judgment, TrainingJob
from searchapp.search.erasing import erase_collection
from searchapp.training import jobs
from tests.judged import make_judged
from tests.test_searchapp.test_training_views import GAP, SYSTEM, made

from .test_calibration_page import picture, signed_in

pytestmark = pytest.mark.django_db(transaction=True, available_apps=django_settings.INSTALLED_APPS)
URL = "/collections/wetland/training/"


@pytest.fixture
def wetland(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    settings.MEDIA_ROOT = tmp_path
    monkeypatch.setattr(jobs, "enqueue", lambda job_id: None)
    monkeypatch.setattr(presence, "is_served", lambda queue: True)
    yield make_judged(user=User.objects.create_user("olive"))


def under_way(collection: Collection, **fields: Any) -> TrainingJob:
    loss = [[step, 0.2 + 0.5 / step + 0.02 * (step % 3)] for step in range(1, 60)]
    values = {
        "state": "running",
        "stage": "Training the reranker",
        "done": 59,
        "total": 240,
        "rate": 118.4,
        "seconds_left": 431.0,
        "settings": {"epochs": 3, "method": "full", "loss": "mse", "seed": 0, "base": ""},
        "figures": {"trained_keys": ["a"] * 30, "held_out_keys": ["b"] * 10},
        "points": {
            "pointwise training": {
                "loss": loss,
                "nDCG@10": [[0, 0.512], [20, 0.561], [40, 0.583]],
            }
        },
        **fields,
    }
    return TrainingJob.objects.create(
        collection=collection,
        config=collection.active_config,
        requested_by=User.objects.get(username="olive"),
        **values,
    )


def test_a_training_is_started_followed_and_cancelled_without_a_reload(
    open_page: Callable[..., Any], wetland: Collection
) -> None:
    page = signed_in(open_page, URL)
    page.get_by_label("Epochs").fill("2")
    page.get_by_label("Count hits without a judgment as not relevant").check()
    page.get_by_role("button", name="Start the training").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Waiting for the training worker")
    job = TrainingJob.objects.get()
    assert (job.settings["epochs"], job.settings["unjudged"]) == (2, True)

    points = {"pointwise training": {"loss": [[1, 0.5], [2, 0.4]]}}
    TrainingJob.objects.update(
        state="running", stage="Training the reranker", done=2, total=9, points=points
    )
    page.wait_for_selector("text=2 of 9")
    page.get_by_text("The same as a table").first.click()
    points["pointwise training"]["loss"].append([3, 0.3])
    TrainingJob.objects.update(done=3, points=points)
    page.wait_for_selector("text=3 of 9")
    assert page.locator("details[id] table").is_visible(), "what was opened stays open"
    assert page.locator(".chart-line").count() == 1

    page.get_by_role("button", name="Cancel the training").click()
    page.wait_for_selector("text=ends at its next step")
    job.refresh_from_db()
    assert job.cancel_requested
    TrainingJob.objects.update(state="cancelled", cancel_requested=False)
    # The page comes back by itself, ready for another one.
    page.wait_for_selector("text=The last training was cancelled")
    assert page.get_by_role("button", name="Start the training").is_enabled()


def test_a_page_that_is_open_no_more_says_so_and_does_not_stand_still(
    open_page: Callable[..., Any], wetland: Collection
) -> None:
    under_way(wetland)
    page = signed_in(open_page, URL)
    # The browser complains of the answer 404 as such, which is meant here.
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("text=59 of 240")
    page.goto("/")
    erase_collection(wetland)
    other.wait_for_selector("text=There is no such page, or it is not open to you.")


def test_a_checkpoint_is_activated_without_scripts(
    open_page: Callable[..., Any], wetland: Collection
) -> None:
    checkpoint = made(wetland)
    page = signed_in(open_page, URL, java_script_enabled=False)
    page.get_by_label("Reason").fill("Better on what people ask here")
    page.get_by_role("button", name=f"Activate checkpoint {checkpoint.pk}").click()
    assert "Version 2 is active" in page.locator(".messages").inner_text()
    assert page.locator(".checkpoint.is-active").count() == 1
    page.get_by_role("link", name="Tuning", exact=True).click()
    assert "Better on what people ask here" in page.locator(".history").inner_text()


@pytest.mark.parametrize(
    ("width", "options"),
    [(1280, {}), (360, {}), (1600, {"color_scheme": "dark"})],
    ids=["desk", "phone", "dark"],
)
def test_the_page_is_sound_at_every_width_and_in_the_dark(
    open_page: Callable[..., Any],
    wetland: Collection,
    accessibility_problems: Callable[[Any], list[str]],
    width: int,
    options: dict[str, Any],
) -> None:
    name = f"{width}-{options.get('color_scheme', 'light')}"
    page = signed_in(open_page, URL, width=width, **options)

    def look(kind: str) -> None:
        page.goto(URL)
        page.wait_for_load_state("networkidle")
        picture(page, f"training-{kind}-{name}")
        assert accessibility_problems(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{kind} is {wide} wide"

    look("ready")
    better = made(wetland)
    worse = made(wetland, state="refused", reasons="It ranks worse than the first stage alone.")
    gaps = {"active": {**GAP, "difference": -0.2, "low": -0.31, "high": -0.1}, "hybrid": GAP}
    Checkpoint.objects.filter(pk=worse.pk).update(
        comparison={**better.comparison, "differences": gaps}
    )
    TrainingJob.objects.filter(pk=worse.job_id).update(state="failed", message="The disk is full.")
    look("checkpoints")
    assert SYSTEM["model"] in page.content()
    under_way(wetland)
    look("running")
    TrainingJob.objects.all().delete()
    Judgment.objects.exclude(query__startswith="heron").delete()
    look("too-few")
