"""`manage.py search` in a process of its own, whose models nobody has loaded before."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from django.conf import settings as django_settings

from searchapp.engine import broker
from tests.shelves import add_document, make_collection
from tests.test_searchapp.test_api.workers import ROOT, database_url

pytestmark = [
    pytest.mark.process,
    pytest.mark.django_db(transaction=True, available_apps=django_settings.INSTALLED_APPS),
]


def test_without_workers_both_legs_and_the_reranker_answer() -> None:
    broker.connection().flushdb()
    collection = make_collection("mixed")
    add_document(collection, "Mixed", ["The oak bears acorns.", "Ships cross the sea."])
    done = subprocess.run(
        [sys.executable, "manage.py", "search", "ships", "--collection", "mixed", "--json"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url(), "EMBED_DEADLINE_MS": "1000"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert {name: leg["status"] for name, leg in found["legs"].items()} == {
        "lexical": "ok",
        "dense": "ok",
    }
    assert found["rerank"]["status"] == "ok"
    assert found["hits"][0]["passage"]["text"] == "Ships cross the sea."
