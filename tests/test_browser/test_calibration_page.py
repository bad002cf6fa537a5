"""Judging and the calibration page in a real browser: with and without scripts, every width."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from searchapp.engine import remote
from searchapp.models import Collection, Judgment
from searchapp.search import calibrated
from tests.fakes import FakeEmbedder
from tests.shelves import add_document, make_collection
from tests.test_searchapp.test_calibration_fit import (
    QUERIES,
    NoisyReranker,
    calibrate,
    judge_all,
)

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
URL = "/collections/pond/calibration/"
SEARCH = "/search?q=heron+of+pond+99&collection=pond&wait=1"


@pytest.fixture
def pond(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    fake = NoisyReranker()
    monkeypatch.setattr(remote, "reranker", lambda: fake)
    monkeypatch.setattr(remote, "embedder", FakeEmbedder)
    collection = make_collection("pond", user=User.objects.create_user("olive"))
    for number in range(12):
        add_document(collection, f"Heron {number}", [f"heron pond {'marsh ' * number}"])
    calibrated._read.cache_clear()
    yield collection
    calibrated._read.cache_clear()


def signed_in(open_page: Callable[..., Any], path: str, **options: Any) -> Any:
    client = Client()
    client.force_login(User.objects.get(username="olive"))
    opened = open_page("/", **options)
    name = settings.SESSION_COOKIE_NAME
    opened.context.add_cookies(
        [{"name": name, "value": client.cookies[name].value, "url": opened.url}]
    )
    opened.goto(path)
    return opened


def picture(page: Any, name: str) -> None:
    """Kept for a person to look at where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_grade_is_one_press_and_the_page_stays(
    open_page: Callable[..., Any], pond: Collection
) -> None:
    page = signed_in(open_page, SEARCH)
    third = page.locator("[data-judge]").nth(2)
    third.get_by_role("button", name="2: Relevant").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-judge] [aria-pressed=true]")
    assert third.locator("[aria-pressed=true]").inner_text() == "2"
    assert page.locator("[data-live]").inner_text().startswith("Relevant: Heron")
    assert Judgment.objects.get().grade == 2
    third.get_by_role("button", name="0: Not relevant").click()
    page.wait_for_function("() => document.querySelector('[aria-pressed=true][data-grade=\"0\"]')")
    third.get_by_role("button", name="0: Not relevant").click()
    page.wait_for_function("() => !document.querySelector('[data-judge] [aria-pressed=true]')")
    assert not Judgment.objects.exists()


def test_a_grade_shows_at_every_passage_of_its_document(
    open_page: Callable[..., Any], pond: Collection
) -> None:
    add_document(pond, "Heron 12", ["heron of pond 99 reeds", "heron of pond 99 again"])
    page = signed_in(open_page, SEARCH)
    same = page.locator('[data-judge][data-document="Heron 12.txt"]')
    assert same.count() == 2
    same.nth(0).get_by_role("button", name="3: Exactly right").click()
    page.wait_for_selector("[data-judge] [aria-pressed=true]")
    pressed = page.locator("[data-judge] [aria-pressed=true]")
    assert [each.inner_text() for each in pressed.all()] == ["3", "3"]
    same.nth(1).get_by_role("button", name="1: Somewhat relevant").click()
    page.wait_for_function("() => document.querySelector('[aria-pressed=true][data-grade=\"1\"]')")
    assert [each.inner_text() for each in pressed.all()] == ["1", "1"]
    assert Judgment.objects.get().grade == 1


def test_judging_works_without_scripts_and_returns_to_the_hit(
    open_page: Callable[..., Any], pond: Collection
) -> None:
    page = signed_in(open_page, SEARCH, java_script_enabled=False)
    page.locator("[data-judge]").nth(4).get_by_role("button", name="3: Exactly right").click()
    assert "#hit-" in page.url
    assert page.locator("[data-judge] [aria-pressed=true]").inner_text() == "3"


@pytest.mark.parametrize(
    ("width", "options"),
    [(1280, {}), (360, {}), (1600, {"color_scheme": "dark"})],
    ids=["desk", "phone", "dark"],
)
def test_the_pages_are_sound_at_every_width_and_in_the_dark(
    open_page: Callable[..., Any],
    pond: Collection,
    accessibility_problems: Callable[[Any], list[str]],
    width: int,
    options: dict[str, Any],
) -> None:
    name = f"{width}-{options.get('color_scheme', 'light')}"
    page = signed_in(open_page, URL, width=width, **options)
    picture(page, f"calibration-empty-{name}")
    assert accessibility_problems(page) == []
    judge_all(pond, QUERIES)
    assert calibrate(pond).state == "ready"
    for path, kind in ((URL, "calibration"), (SEARCH, "judging")):
        page.goto(path)
        picture(page, f"{kind}-{name}")
        assert accessibility_problems(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} wide"
    assert page.locator("[data-judge]").count() == 10
    assert "calibrated" in page.locator(".status-text").inner_text()
