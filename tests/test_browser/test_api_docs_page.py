"""The page of the API in a real browser: every width, in the dark, without scripts, and a call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from searchapp.api.own.endpoint import ENDPOINTS
from tests.callers import make_key
from tests.shelves import make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)


def picture(page: Any, name: str) -> None:
    """Kept for a person to look at where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize(
    ("width", "options"),
    [
        (1280, {}),
        (360, {"java_script_enabled": False}),
        (1280, {"color_scheme": "dark"}),
    ],
    ids=["desk", "phone without scripts", "dark"],
)
def test_every_operation_can_be_read(
    open_page: Callable[..., Any],
    accessibility_problems: Callable[[Any], list[str]],
    width: int,
    options: dict[str, Any],
) -> None:
    page = open_page("/api/docs", width=width, **options)
    assert page.locator("[data-operation]").count() == len(ENDPOINTS)
    name = f"api-docs-{width}-{options.get('color_scheme', 'light')}"
    picture(page, f"{name}-closed")
    page.locator("#search > summary").click()
    page.locator("#search h3 >> text=Statuses").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if options.get("java_script_enabled", True):
        assert accessibility_problems(page) == []
    page.locator("#search").scroll_into_view_if_needed()
    picture(page, name)


def test_a_call_is_made_from_the_page(open_page: Callable[..., Any]) -> None:
    olive = User.objects.create_user("olive")
    make_collection("handbook", user=olive)
    page = open_page("/api/docs#read_collection")
    operation = page.locator("#read_collection")
    operation.locator("button").click()
    assert operation.locator("[data-told]").inner_text() == "Type an API key first."
    page.locator("#api-key").fill(make_key(olive, "search")[1])
    operation.locator("button").click()
    operation.locator("[data-answer]").wait_for()
    assert operation.locator("[data-told]").inner_text().startswith("200 in ")
    assert '"slug": "handbook"' in operation.locator("[data-answer]").inner_text()
    picture(page, "api-docs-tried")
