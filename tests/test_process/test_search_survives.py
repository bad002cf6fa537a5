"""A rerank worker that dies in the middle of a search leaves the page with the fused order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.test import Client

from searchapp.engine import broker, presence
from searchapp.models import Collection, Document, DocumentText, Passage, Trace
from searchapp.search.segments import index_passages
from tests.test_searchapp.test_engine_worker import database_url

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = [
    pytest.mark.process,
    pytest.mark.django_db(transaction=True, available_apps=django_settings.INSTALLED_APPS),
]


@pytest.fixture
def collection(transactional_db: None) -> Collection:
    made = Collection.objects.create_with_owner(slug="garden", name="Garden", is_public=True)
    texts = ["Water the tomato plants each morning.", "A tomato stew.", "Tomato history in brief."]
    for number, text in enumerate(texts):
        document = Document.objects.create(collection=made, path=f"{number}.txt", title="")
        DocumentText.objects.create(document=document, text=text)
        passage = Passage.objects.create(
            collection=made, document=document, ordinal=0, text=text, start=0, end=len(text)
        )
        index_passages(made, [(passage.pk, text)])
    return made


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    broker.connection().flushdb()
    log = (tmp_path / "worker.log").open("wb")
    command = ["-m", "celery", "-A", "searchapp", "worker", "--queues=gpu", "--pool=threads"]
    process = subprocess.Popen(
        [sys.executable, *command, "--concurrency=2"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url()},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.time() + 90
        while not presence.alive("gpu"):
            assert process.poll() is None and time.time() < end, (
                tmp_path / "worker.log"
            ).read_text()
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        log.close()


def test_killing_the_rerank_worker_during_a_search_leaves_the_fused_order_and_a_sentence(
    collection: Collection,
    worker: subprocess.Popen[bytes],
    client: Client,
    settings: pytest.FixtureRequest,
) -> None:
    settings.RERANK_DEADLINE_MS = 30_000  # type: ignore[attr-defined]
    address = "/search?collection=garden&q=tomato"
    # With the worker alive the same search is reranked: the test can tell the difference.
    client.get(address)
    whole = client.get(f"/search/{Trace.objects.latest('id').uid}/rerank").content.decode()
    assert Trace.objects.latest("id").result["rerank"]["status"] == "ok"
    assert "first-stage order" not in whole.split("</p>")[0]

    settings.RERANK_DEADLINE_MS = 4000  # type: ignore[attr-defined]
    worker.send_signal(signal.SIGSTOP)  # it has the search in hand, or is about to take it
    page = client.get(address)
    assert page.status_code == 200 and b"Reranking 3 passages" in page.content
    worker.kill()
    worker.wait(30)
    trace = Trace.objects.latest("id")
    began = time.time()
    fragment = client.get(f"/search/{trace.uid}/rerank")
    assert fragment.status_code == 200 and time.time() - began < 10
    trace.refresh_from_db()
    assert trace.result["rerank"]["status"] in {"late", "unavailable"}
    assert trace.result["rerank"]["reason"].lower() in fragment.content.decode().lower()
    ranks = [(hit["rank"], hit["first_stage_rank"]) for hit in trace.result["hits"]]
    assert ranks == [(1, 1), (2, 2), (3, 3)]

    # Once its place in the presence list has run out, nobody waits at all.
    end = time.time() + 30
    while presence.alive("gpu"):
        assert time.time() < end
        time.sleep(0.2)
    client.get(address)
    after = Trace.objects.latest("id")
    fragment = client.get(f"/search/{after.uid}/rerank").content.decode()
    assert "no rerank worker is running." in fragment.lower()
