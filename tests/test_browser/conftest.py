"""One Chromium for all browser tests, a page per test, and what every page must satisfy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Playwright keeps an event loop in this thread, which Django would take for async code.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

CANDIDATES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
CHECKS = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that need it are skipped where there is none."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CANDIDATES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine (install it or set CHROMIUM to its path)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, live_server: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(path, width=…, **context options)` -> a loaded page. When the test ends, anything
    the browser complained about on any of its pages fails it."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_at(path: str, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(
            base_url=live_server.url, viewport={"width": width, "height": height}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)

        def listen(message: Any) -> None:
            if message.type in {"error", "warning"}:
                complaints.append(f"{path}: {message.text}")

        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
        page.goto(path)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def accessibility_problems() -> Callable[[Any], list[str]]:
    """`accessibility_problems(page)`: sentences about labels, headings, contrast and the like."""
    return lambda page: page.evaluate(CHECKS)
