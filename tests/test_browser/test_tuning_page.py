"""The tuning page in a real browser: the draft, its glossary, the preview, activation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from searchapp.engine import remote
from searchapp.models import Collection
from searchapp.search import configs
from tests.fakes import FakeEmbedder, FakeReranker
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
URL = "/collections/birds/tuning/"


@pytest.fixture
def birds(monkeypatch: pytest.MonkeyPatch) -> Collection:
    fake = FakeReranker()
    monkeypatch.setattr(remote, "reranker", lambda: fake)
    monkeypatch.setattr(remote, "embedder", FakeEmbedder)
    collection = make_collection("birds", user=User.objects.create_user("olive"))
    for number in range(1, 13):
        add_document(collection, f"Heron {number}", [f"heron {'marsh ' * number}"])
    return collection


@pytest.fixture
def page(open_page: Callable[..., Any], birds: Collection) -> Any:
    return open_tuning(open_page)


def open_tuning(open_page: Callable[..., Any], **options: Any) -> Any:
    client = Client()
    client.force_login(User.objects.get(username="olive"))
    opened = open_page("/", **options)
    name = settings.SESSION_COOKIE_NAME
    opened.context.add_cookies(
        [{"name": name, "value": client.cookies[name].value, "url": opened.url}]
    )
    opened.goto(URL)
    return opened


def test_what_is_typed_survives_leaving_and_can_be_forgotten(page: Any) -> None:
    page.fill("#id_instruction", "Prefer marshes.")
    page.get_by_role("textbox", name="Term 1", exact=True).fill("PTO")
    page.get_by_role("textbox", name="Meaning 1", exact=True).fill("paid time off")
    assert page.locator("[data-dirty]").inner_text() == "Not saved yet"
    page.goto("/collections/")
    page.goto(URL)
    assert page.input_value("#id_instruction") == "Prefer marshes."
    assert page.get_by_role("textbox", name="Term 1", exact=True).input_value() == "PTO"
    page.get_by_role("button", name="Forget them").click()
    page.wait_for_function("() => document.querySelector('#id_instruction').value === ''")
    assert not page.locator("[data-restored]").is_visible()


def test_rows_of_the_glossary_come_and_go(page: Any, birds: Collection) -> None:
    rows = page.locator("[data-glossary-row]")
    assert rows.count() == 3
    for number in range(1, 5):
        if number == 4:
            page.get_by_role("button", name="Add a term").click()
        page.get_by_role("textbox", name=f"Term {number}", exact=True).fill(f"term {number}")
        page.get_by_role("textbox", name=f"Meaning {number}", exact=True).fill("meaning")
    page.get_by_role("button", name="Remove term 2").click()
    page.get_by_role("button", name="Save the draft").click()
    page.wait_for_selector(".messages")
    draft = configs.open_draft(birds)
    assert [row["term"] for row in draft.glossary] == ["term 1", "term 3", "term 4"]


def test_a_saved_query_shows_both_rankings_and_the_version_is_activated(
    page: Any, birds: Collection, accessibility_problems: Callable[[Any], list[str]]
) -> None:
    page.fill("#id_rerank_depth", "0")
    page.fill("#add-text", "heron marsh")
    page.get_by_role("button", name="Save query").click()
    page.wait_for_url(re.compile("query="))
    page.wait_for_selector(".compare-picture")
    assert "8 of 10 in both" in page.locator("[data-preview]").inner_text()
    assert page.locator(".saved-query[aria-current]").inner_text() == "heron marsh"
    assert accessibility_problems(page) == []
    page.fill("#reason", "Words alone are enough here")
    page.get_by_role("button", name="Save and activate").click()
    page.wait_for_selector(".messages")
    birds.refresh_from_db()
    assert birds.active_config.rerank_depth == 0
    assert "Words alone are enough here" in page.locator(".history").inner_text()


def test_it_works_without_scripts_at_any_width(
    open_page: Callable[..., Any], birds: Collection
) -> None:
    for width in (360, 900, 1600):
        page = open_tuning(open_page, width=width, java_script_enabled=False)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("[name=term]").nth(0).fill("PTO")
    page.locator("[name=meaning]").nth(0).fill("paid time off")
    page.fill("#add-text", "heron marsh")
    page.get_by_role("button", name="Save query").click()
    assert page.locator(".compare-picture").count() == 1
    assert configs.open_draft(birds).glossary == [{"term": "PTO", "meaning": "paid time off"}]
    assert page.locator("[name=term]").count() == 4
