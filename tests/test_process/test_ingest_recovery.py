"""A worker killed outright in the middle of a file loses nothing: the sweep has it finished."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from searchapp.ingest import control
from searchapp.ingest.receive import receive
from searchapp.models import Collection, Document, Passage, PendingVector, Upload, UploadState
from searchapp.search import pipeline as searching

ROOT = Path(__file__).resolve().parents[2]
ROWS = 3000

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]


def database_url() -> str:
    """Where this test's own database is, for a process of its own."""
    facts = connection.settings_dict
    host = facts["HOST"] or facts["OPTIONS"].get("host", "")
    port = f":{facts['PORT']}" if facts["PORT"] else ""
    login = f"{facts['USER']}:{facts['PASSWORD']}@" if facts["PASSWORD"] else f"{facts['USER']}@"
    if host.startswith("/"):
        return f"postgresql://{login}/{facts['NAME']}?host={host}"
    return f"postgresql://{login}{host}{port}/{facts['NAME']}"


@contextmanager
def default_worker(media: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "searchapp", "worker"]
    worker = subprocess.Popen(
        [*command, "-Q", "default", "-P", "prefork", "-c", "1", "--without-gossip"],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": database_url(),
            "REDIS_URL": django_settings.REDIS_URL,
            "MEDIA_ROOT": str(media),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.03)


def test_a_worker_killed_in_the_middle_of_a_file_loses_and_doubles_nothing(
    settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    collection = Collection.objects.create_with_owner(slug="papers", name="Papers")
    lines = [json.dumps({"_id": f"d{n}", "text": f"common word{n} here"}) for n in range(ROWS)]
    batch = receive(collection, [("c.jsonl", io.BytesIO("\n".join(lines).encode()))])
    upload = batch.uploads.get()

    with default_worker(settings.MEDIA_ROOT) as worker:
        wait_for(lambda: Document.objects.count() >= 100, 60)
        family = psutil.Process(worker.pid).children(recursive=True)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    # The reading child notices too: its pipes are closed.
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []

    written = Document.objects.count()
    assert 0 < written < ROWS, "the worker was to be killed in the middle"
    upload.refresh_from_db()
    assert upload.state == UploadState.PARSING
    assert control.sweep()["requeued"] == 0, "the lease still runs"
    Upload.objects.update(lease_until=timezone.now() - timedelta(seconds=1))  # time goes by
    assert control.sweep()["requeued"] == 1

    with default_worker(settings.MEDIA_ROOT):
        wait_for(lambda: Upload.objects.get().state == UploadState.INDEXING, 90)
    upload.refresh_from_db()
    assert (upload.documents_done, upload.attempts) == (ROWS, 2)
    assert Document.objects.count() == Passage.objects.count() == ROWS
    assert PendingVector.objects.count() == ROWS
    for word in ("word0", "word99", f"word{ROWS - 1}"):
        result = searching.start(word, collection, user=searching.operator())
        assert len(result.hits) == 1, word
