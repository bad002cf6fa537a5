"""The search page in a real browser: rows that move, keys, pictures, no scripts, both themes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from searchapp.engine import remote
from searchapp.models import Collection, Trace
from tests.fakes import FakeEmbedder, FakeReranker
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db(transaction=True)
SEARCH = "/search?q=heron+marsh&collection=library"


@pytest.fixture
def reranker(monkeypatch: pytest.MonkeyPatch) -> FakeReranker:
    fake = FakeReranker(delay_seconds=0.4)
    monkeypatch.setattr(remote, "reranker", lambda: fake)
    monkeypatch.setattr(remote, "embedder", FakeEmbedder)
    return fake


@pytest.fixture
def library(reranker: FakeReranker) -> Collection:
    cache.clear()
    collection = make_collection(suggested_queries=["wading birds"])
    for number in range(1, 31):
        add_document(
            collection,
            f"Heron {number}",
            [f"The heron {number} wades {'slowly ' * number}through the marsh."],
            metadata={"bird": "heron"},
        )
    return collection


def titles(page: Any) -> list[str]:
    return [each.strip() for each in page.locator(".hit-title a").all_text_contents()]


def wait_for_rerank(page: Any) -> None:
    page.wait_for_selector(".results[data-status=ok]")


def test_rows_are_usable_at_once_and_move_when_the_rerank_arrives(
    open_page: Callable[..., Any], library: Collection, reranker: FakeReranker
) -> None:
    reranker.delay_seconds = 1.5
    page = open_page(SEARCH)
    assert page.locator(".reranking").is_visible()
    first_stage = titles(page)
    assert len(first_stage) == 10
    page.locator(".hit-title a").nth(3).focus()
    focused = first_stage[3]
    wait_for_rerank(page)
    assert titles(page) != first_stage
    assert not page.locator(".reranking").count()
    assert page.locator("[data-live]").inner_text().startswith("Reranked: ")
    # Rank 4 of 30 left the first page, so the focus is not stolen by another row.
    assert page.evaluate("document.activeElement.textContent") != focused
    assert Trace.objects.count() == 1


def test_rows_slide_in_a_quarter_of_a_second_and_stand_still_for_those_who_ask(
    open_page: Callable[..., Any], library: Collection
) -> None:
    watch = """() => {
      window.slides = [];
      const animate = Element.prototype.animate;
      Element.prototype.animate = function (frames, timing) {
        window.slides.push(timing.duration);
        return animate.call(this, frames, timing);
      };
    }"""
    for motion, expected in (("no-preference", {250}), ("reduce", set())):
        page = open_page("/", reduced_motion=motion)
        page.add_init_script(f"({watch})()")
        page.goto(SEARCH)
        wait_for_rerank(page)
        assert set(page.evaluate("window.slides")) == expected


def test_without_scripts_the_reranked_list_comes_by_itself(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(SEARCH, java_script_enabled=False)
    page.wait_for_url(re.compile("wait=1"))
    assert "reranked by" in page.locator(".status-text").inner_text()
    assert page.locator(".hit").count() == 10
    assert page.locator(".hit-move").first.inner_text().startswith("▲")
    page.get_by_role("link", name="Page 2").click()
    assert page.locator(".hit-rank").first.inner_text().endswith("11")
    assert Trace.objects.count() == 1


def test_order_view_and_page_switch_without_a_reload_and_back_works(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(SEARCH)
    wait_for_rerank(page)
    reranked = titles(page)
    page.evaluate("window.same = true")
    page.get_by_role("link", name="first-stage order").click()
    page.wait_for_url(re.compile("order=first"))
    assert titles(page) != reranked
    page.get_by_role("link", name="before/after").click()
    page.wait_for_selector(".compare-picture")
    page.go_back()
    page.go_back()
    page.wait_for_selector(".hits")
    page.wait_for_function(
        "first => document.querySelector('.hit-title a').textContent === first", arg=reranked[0]
    )
    assert page.evaluate("window.same") is True
    assert Trace.objects.count() == 1


def test_keys_move_open_and_explain_themselves(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(SEARCH)
    wait_for_rerank(page)
    active = "document.activeElement.id || document.activeElement.textContent.trim()"
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(active) == titles(page)[1]
    page.keyboard.press("k")
    assert page.evaluate(active) == titles(page)[0]
    page.keyboard.press("/")
    assert page.evaluate(active) == "query"
    page.keyboard.type("j?")
    assert page.locator("#query").input_value() == "j?"
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    assert page.evaluate(active) == "instruction"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="hidden")
    page.keyboard.press("b")
    page.wait_for_selector(".compare-picture")
    page.keyboard.press("b")
    page.wait_for_selector(".hits")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/documents/"))
    page.wait_for_selector("#passage")


def test_a_key_counts_in_the_very_frame_in_which_the_dialog_of_keys_closes(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(SEARCH)
    wait_for_rerank(page)
    held = page.evaluate(
        """() => {
            const dialog = document.querySelector('dialog');
            dialog.showModal();
            dialog.close();
            const focused = document.activeElement;
            focused.dispatchEvent(new KeyboardEvent('keydown', { key: 'b', bubbles: true }));
            return focused.closest('dialog') !== null;
        }"""
    )
    assert held
    page.wait_for_selector(".compare-picture")


def test_one_line_of_the_picture_stands_out_under_pointer_and_focus(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(f"{SEARCH}&view=compare&wait=1")
    item = page.locator(".compare-item").nth(2)
    width = "element => getComputedStyle(element.querySelector('.compare-line')).strokeWidth"
    opacity = "element => Number(getComputedStyle(element.querySelector('.compare-line')).opacity)"
    other = page.locator(".compare-item").nth(5)
    item.locator(".compare-after").hover()
    wait_for_transitions(page)
    assert item.evaluate(width) == "3px"
    assert other.evaluate(opacity) < 0.5
    readout = page.locator("[data-readout]")
    assert re.search(r"rank \d+ \(score 0\.\d+\) before, rank 3 \(score", readout.inner_text())
    page.mouse.move(5, 5)
    page.keyboard.press("j")
    wait_for_transitions(page)
    focused = page.locator(".compare-item").first
    assert focused.evaluate("element => element === document.activeElement")
    assert focused.evaluate(width) == "3px"


def wait_for_transitions(page: Any) -> None:
    page.evaluate("() => Promise.allSettled(document.getAnimations().map((each) => each.finished))")


def test_the_labels_of_the_picture_stand_where_its_lines_end(
    open_page: Callable[..., Any], library: Collection
) -> None:
    for width in (360, 900, 1600):
        page = open_page(f"{SEARCH}&view=compare&rows=25&wait=1", width=width)
        gaps = page.evaluate(
            """() => [...document.querySelectorAll('.compare-item')].map((item) => {
              const label = item.querySelector('.compare-after')?.getBoundingClientRect();
              const line = item.querySelector('.compare-line');
              if (!label) return 0;
              const end = line.getPointAtLength(line.getTotalLength());
              const point = new DOMPoint(end.x, end.y).matrixTransform(line.getScreenCTM());
              const middle = label.top + label.height / 2;
              return Math.max(Math.abs(point.x - label.left), Math.abs(point.y - middle));
            })"""
        )
        assert max(gaps) < 1.5


def test_an_unchanged_instruction_stays_out_of_the_address(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(SEARCH)
    page.locator("#query").fill("heron")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=heron&"))
    assert "instruction" not in page.url and "meta=" not in page.url
    page.locator("#instruction").fill("Only the slow ones.")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("instruction=Only"))
    assert page.get_by_text("edited for this search").is_visible()


def test_a_worker_that_fails_leaves_the_rows_and_a_sentence(
    open_page: Callable[..., Any], library: Collection, reranker: FakeReranker
) -> None:
    reranker.status, reranker.reason = "unavailable", "No rerank worker is running."
    page = open_page(SEARCH)
    page.wait_for_selector(".results[data-status=unavailable]")
    assert page.get_by_role("note").inner_text() == (
        "Shown in first-stage order: no rerank worker is running."
    )
    assert page.locator(".hit").count() == 10


def test_leaving_the_page_cancels_the_rerank_and_coming_back_searches_again(
    open_page: Callable[..., Any], library: Collection, reranker: FakeReranker
) -> None:
    reranker.delay_seconds = 3
    page = open_page(SEARCH)
    page.wait_for_selector("[data-results][aria-busy=true]")
    page.goto("/")
    end = time.monotonic() + 5
    while not reranker.cancelled:
        assert time.monotonic() < end, "the rerank was not cancelled"
        page.wait_for_timeout(20)
    reranker.delay_seconds = 0
    page.go_back()
    wait_for_rerank(page)
    assert page.locator(".notice").count() == 0 and len(reranker.submitted) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_pages_keep_the_basics_of_accessibility(
    open_page: Callable[..., Any],
    accessibility_problems: Callable[[Any], list[str]],
    library: Collection,
    client: Client,
    scheme: str,
    width: int,
) -> None:
    client.get(f"{SEARCH}&wait=1")
    trace, document = Trace.objects.get(), library.documents.all()[0]
    paths = [
        "/",
        f"{SEARCH}&wait=1",
        f"{SEARCH}&view=compare&wait=1",
        "/search?collection=library",
        "/search?q=zeppelin&collection=library&meta=bird%3Dstork",
        f"/traces/{trace.uid}",
        f"/documents/{document.uid}?passage=0&q=heron",
        f"/documents/{document.uid}?show=passages",
        "/accounts/login/",
    ]
    page = open_page(paths[0], width=width, color_scheme=scheme)
    found = {}
    for path in paths:
        page.goto(path)
        found[path] = accessibility_problems(page)
    assert {path: problems for path, problems in found.items() if problems} == {}


def test_focus_is_visible_and_the_first_stop_skips_to_the_content(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page(f"{SEARCH}&wait=1")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(14):
        page.keyboard.press("Tab")
        visible = page.evaluate(
            """() => {
              const e = document.activeElement, s = getComputedStyle(e);
              const frame = e.closest('.search-box-frame');
              return (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1)
                || (frame && getComputedStyle(frame).boxShadow !== 'none');
            }"""
        )
        assert visible, page.evaluate("document.activeElement.outerHTML")


def test_the_theme_switch_works_in_place_and_is_remembered(
    open_page: Callable[..., Any], library: Collection
) -> None:
    page = open_page("/", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_text("Light or dark").locator("..").click()
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(background)
    assert dark != light
    page.goto(SEARCH)
    assert page.evaluate(background) == dark
