"""The code of docs/moving-in.md runs as it stands there, with another address and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from tests.callers import make_key

from .workers import running_worker

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

PAGE = (Path(settings.BASE_DIR) / "docs" / "moving-in.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
# Not among the requirements, and why: tests run these where somebody installed them.
LEFT_OUT = {
    "langchain_cohere": "it wants an older cohere than the one that the dialects are tested with",
    "llama_index": "it brings forty packages, and an older pydantic",
}


def installed() -> list[str]:
    return [each for each in SNIPPETS if not any(_is_missing(each, name) for name in LEFT_OUT)]


def _is_missing(snippet: str, package: str) -> bool:
    if f"from {package}" not in snippet:
        return False
    try:
        __import__(package)
    except ImportError:
        return True
    return False


@pytest.mark.process
def test_the_snippets_of_the_page_rank(
    live_server: Any, clean_broker: None, olive: User, tmp_path: Path
) -> None:
    assert len(SNIPPETS) == 3
    plain = make_key(olive, "search")[1]
    with running_worker(tmp_path / "worker.log", "gpu,embed"):
        for snippet in installed():
            code = snippet.replace("https://search.example.org", live_server.url)
            names: dict[str, Any] = {}
            exec(code.replace("podium_…", plain), names)
            assert names["best"] == "Water the tomato plants each morning.", snippet
            assert len(names["found"]) == 2


@pytest.mark.parametrize("package", LEFT_OUT)
def test_a_snippet_is_run_where_its_package_is_installed(package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: {LEFT_OUT[package]}")
    assert any(f"from {package}" in each for each in installed())
