"""The pages of API keys in a real browser: with and without scripts, every width, in the dark."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from searchapp.models import ApiKey, ApiUsage
from tests.callers import caller, make_key
from tests.shelves import make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
URL = "/accounts/api-keys/"


@pytest.fixture
def olive() -> User:
    user = User.objects.create_user("olive")
    for name in ("Handbook", "Recipes of the canteen", "Minutes"):
        make_collection(name.split(maxsplit=1)[0].lower(), user=user, name=name)
    return user


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


def some_usage(key: ApiKey) -> None:
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    for day in range(6):
        for family, calls in (("rerank", 800 + 300 * day), ("documents", 90)):
            ApiUsage.objects.create(
                key=key, hour=now - timedelta(days=day), family=family, calls=calls,
                refused=calls // (day + 4), pairs=50 * calls, bytes=110_000 * calls,
                tokens=24_000 * calls,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("width", "options"),
    [
        (1280, {}),
        (360, {"java_script_enabled": False}),
        (1280, {"color_scheme": "dark"}),
    ],
    ids=["desk", "phone without scripts", "dark"],
)
def test_a_key_is_made_seen_once_and_revoked(
    open_page: Callable[..., Any],
    olive: User,
    accessibility_problems: Callable[[Any], list[str]],
    width: int,
    options: dict[str, Any],
) -> None:
    name = f"{width}-{options.get('color_scheme', 'light')}"

    def sound(kind: str) -> None:
        picture(page, f"api-{kind}-{name}")
        if options.get("java_script_enabled", True):
            assert accessibility_problems(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    old, _ = make_key(olive, name="Night import", collections=olive.collection_set.all()[:2])
    make_key(olive, "search", name="Intranet", expires_at=timezone.now() + timedelta(days=30))
    make_key(olive, name="Trial", expires_at=timezone.now() - timedelta(days=3))
    page = signed_in(open_page, URL, width=width, **options)
    sound("keys")

    page.get_by_label("Name").fill("Shop")
    page.get_by_label("Only those ticked here").check()
    page.get_by_label("Handbook").check()
    page.get_by_role("button", name="Make the key").click()
    plain = page.get_by_label("Key", exact=True).input_value()
    assert [each.slug for each in caller(plain).collections] == ["handbook"]
    if options.get("java_script_enabled", True):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy").click()
        page.get_by_text("Copied.").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == plain
    else:
        assert not page.get_by_role("button", name="Copy").is_visible()
    sound("made")
    page.goto(URL)
    assert plain not in page.content()

    page.locator("summary", has_text="Revoke Shop").click()
    sound("revoking")
    page.get_by_role("button", name="Revoke it").click()
    assert "Shop is revoked" in page.locator(".messages").inner_text()
    assert ApiKey.objects.get(name="Shop").revoked_at is not None
    page.get_by_role("link", name="Usage").click()
    assert "Nothing was asked" in page.content()
    some_usage(old)
    page.get_by_role("link", name="Last 30 days").click()
    assert page.locator(".usage-bar").count() == 60
    sound("usage")
