"""The code of docs/moving-in.md runs as it stands there, with another address and key.

Two of its packages want other versions than the tests do; `make snippet-sdks` fetches them into an
environment of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from tests.callers import make_key

from .workers import running_worker

pytestmark = [
    pytest.mark.process,
    pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS),
]

PAGE = (Path(settings.BASE_DIR) / "docs" / "moving-in.md").read_text(encoding="utf-8")
# Package -> the code that imports from it.
SNIPPETS = {
    re.findall(r"^from (\w+)", code, flags=re.MULTILINE)[-1]: code
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
}
APART = Path(settings.BASE_DIR) / ".venv-snippets" / "bin" / "python"
# Interpreter -> the packages whose snippets it runs.
INTERPRETERS = {
    Path(sys.executable): {"langchain_voyageai"},
    APART: {"langchain_cohere", "llama_index"},
}
PRINTED = "\nimport json\nprint(json.dumps([best, len(found)]))\n"


def test_each_snippet_of_the_page_is_run_by_somebody() -> None:
    assert set(SNIPPETS) == set().union(*INTERPRETERS.values())


@pytest.mark.parametrize("python", INTERPRETERS, ids=["installed", "apart"])
def test_the_snippets_of_the_page_rank(
    python: Path, live_server: Any, clean_broker: None, olive: User, tmp_path: Path
) -> None:
    if not python.exists():
        pytest.skip("make snippet-sdks has not fetched the packages")
    key = make_key(olive, "search")[1]
    with running_worker(tmp_path / "worker.log", "gpu,embed"):
        for package in INTERPRETERS[python]:
            code = SNIPPETS[package].replace("https://search.example.org", live_server.url)
            done = subprocess.run(
                [str(python), "-c", code.replace("podium_…", key) + PRINTED],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{package}: {done.stderr}"
            printed = json.loads(done.stdout.splitlines()[-1])
            assert printed == ["Water the tomato plants each morning.", 2], package
