"""The upload pages in a real browser: many files, bad ones among them, states, acts, no scripts."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from searchapp.ingest import queueing
from searchapp.ingest.pipeline import ingest
from searchapp.models import Collection, Upload, UploadBatch, UploadState
from tests.shelves import make_collection

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
URL = "/collections/papers/uploads/"


@pytest.fixture
def papers(monkeypatch: pytest.MonkeyPatch) -> Collection:
    # No broker in these tests: `Worker` below does what the messages would ask for.
    monkeypatch.setattr(queueing, "_send", lambda *message: None)
    return make_collection("papers", user=User.objects.create_user("olive"))


@pytest.fixture
def open_signed_in(
    open_page: Callable[..., Any], papers: Collection, live_server: Any
) -> Callable[..., Any]:
    def open_at(path: str, **options: Any) -> Any:
        client = Client()
        client.force_login(User.objects.get(username="olive"))
        cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
        state = {
            "cookies": [
                {
                    "name": settings.SESSION_COOKIE_NAME,
                    "value": cookie,
                    "domain": "localhost",
                    "path": "/",
                    "expires": -1,
                    "httpOnly": True,
                    "secure": False,
                    "sameSite": "Lax",
                }
            ],
            "origins": [],
        }
        return open_page(path, storage_state=state, **options)

    return open_at


class Worker:
    """Reads one waiting file after the other in a thread, as the default worker would."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                waiting = Upload.objects.filter(
                    state=UploadState.RECEIVED, batch__paused=False
                ).first()
                if waiting is None:
                    self._ended.wait(0.1)
                else:
                    ingest(waiting.pk)
        finally:
            connection.close()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(30)


@pytest.fixture
def worker(papers: Collection) -> Iterator[Worker]:
    running = Worker()
    yield running
    running.stop()


def files() -> list[dict[str, Any]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("inner/one.md", "# One\n\nA member of the archive.")
    contents = {f"note {number}.txt": f"Note number {number}.".encode() for number in range(45)}
    contents |= {
        "empty.txt": b"",
        "broken.pdf": b"%PDF-1.7\nnothing",
        "same.txt": b"Note number 7.",
        "pack.zip": archive.getvalue(),
    }
    return [
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        for name, content in contents.items()
    ]


def test_many_files_go_into_one_batch_and_the_list_tells_of_each(
    open_signed_in: Callable[..., Any], worker: Worker
) -> None:
    page = open_signed_in(URL)
    page.set_input_files("#files", files())
    page.wait_for_url(re.compile("/uploads/[0-9a-f-]{36}/$"))
    page.wait_for_function(
        "() => document.querySelector('.stat-of')?.textContent.includes('of 50')", timeout=60_000
    )
    assert UploadBatch.objects.count() == 1
    page.wait_for_function(
        "() => !/waiting|reading/.test(document.querySelector('.files-table').innerText)",
        timeout=60_000,
    )
    text = page.locator(".batch-status").inner_text()
    assert "The file is empty." in text
    assert "This PDF is damaged and cannot be opened." in text
    assert "The same bytes were uploaded before as “note 7.txt”" in text
    assert (
        page.locator(".files-table tbody tr")
        .first.inner_text()
        .startswith(("empty.txt", "broken.pdf"))
    )
    assert page.locator(".is-nested").inner_text().startswith("inner/one.md")
    page.locator("#tab-failed").click()
    page.wait_for_url(re.compile("state=failed"))
    page.wait_for_function("() => document.querySelectorAll('.files-table tbody tr').length === 2")
    # Coming back shows the same.
    page.reload()
    assert page.locator(".files-table tbody tr").count() == 2


def test_dropped_folders_keep_their_paths(
    open_signed_in: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    (folder / "2026").mkdir(parents=True)
    (folder / "2026" / "a.txt").write_text("the first report")
    (folder / "b.txt").write_text("the second report")
    page = open_signed_in(URL)
    page.set_input_files("#folder", folder)
    page.wait_for_function("() => document.querySelectorAll('.files-table tbody tr').length === 2")
    names = sorted(Upload.objects.values_list("name", flat=True))
    assert names == ["reports/2026/a.txt", "reports/b.txt"]


def test_a_drop_is_taken_and_shows_where_it_may_fall(open_signed_in: Callable[..., Any]) -> None:
    page = open_signed_in(URL)
    page.evaluate(
        """() => {
          window.transfer = new DataTransfer();
          transfer.items.add(new File(["dropped text"], "dropped.txt"));
          const zone = document.querySelector(".dropzone");
          zone.dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer, bubbles: true }));
        }"""
    )
    assert "is-over" in page.locator(".dropzone").get_attribute("class")
    page.evaluate(
        """() => document.querySelector(".dropzone").dispatchEvent(
          new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }))"""
    )
    page.wait_for_selector(".files-table")
    assert Upload.objects.get().name == "dropped.txt"
    assert "is-over" not in page.locator(".dropzone").get_attribute("class")


def test_too_large_and_too_many_are_said_before_anything_is_sent(
    open_signed_in: Callable[..., Any],
) -> None:
    page = open_signed_in(URL)
    page.evaluate("document.querySelector('[data-upload]').dataset.fileBytes = 1024")
    page.set_input_files(
        "#files", [{"name": "large.txt", "mimeType": "text/plain", "buffer": b"x" * 2000}]
    )
    notice = page.locator("[data-refused]")
    assert "One file is larger than the 1 KB allowed" in notice.inner_text()
    assert "large.txt" in notice.inner_text()
    page.evaluate("document.querySelector('[data-upload]').dataset.fileCount = 2")
    page.set_input_files("#files", files()[:3])
    page.wait_for_function(
        "() => document.querySelector('[data-refused]').innerText.includes('These are 3 files')"
    )
    assert not UploadBatch.objects.exists()


def test_pause_cancel_and_retry_act_without_a_reload(
    open_signed_in: Callable[..., Any], papers: Collection
) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    for number in range(3):
        Upload.objects.create(
            batch=batch, collection=papers, name=f"{number}.txt", size_bytes=5, checksum=f"{number}"
        )
    Upload.objects.create(
        batch=batch,
        collection=papers,
        name="torn.txt",
        size_bytes=5,
        checksum="t",
        file="uploads/torn",
        state=UploadState.FAILED,
        message="The worker stopped.",
        retryable=True,
    )
    page = open_signed_in(f"/uploads/{batch.uid}/")
    page.evaluate("window.same = true")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    batch.refresh_from_db()
    assert batch.paused
    assert "Paused. Nothing is lost" in page.locator(".batch-status").inner_text()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Retry torn.txt").click()
    page.get_by_role("button", name="Retry torn.txt").wait_for(state="detached")
    assert batch.uploads.get(name="torn.txt").state == UploadState.RECEIVED
    page.get_by_role("button", name="Cancel the rest").click()
    page.get_by_role("button", name="Cancel the rest").wait_for(state="detached")
    assert set(batch.uploads.values_list("state", flat=True)) == {"cancelled"}
    assert page.evaluate("window.same") is True


def test_without_scripts_files_are_uploaded_by_the_form(
    open_signed_in: Callable[..., Any],
) -> None:
    page = open_signed_in(URL, java_script_enabled=False)
    page.set_input_files("#files", files()[:3])
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url(re.compile("/uploads/[0-9a-f-]{36}/$"))
    assert page.locator(".files-table tbody tr").count() == 3
    page.get_by_role("button", name="Pause").click()
    assert "Paused" in page.locator(".messages").inner_text()


@pytest.mark.parametrize("width", [360, 900, 1600])
def test_the_pages_of_a_collection_fit_and_can_be_read_by_all(
    open_signed_in: Callable[..., Any],
    accessibility_problems: Callable[[Any], list[str]],
    papers: Collection,
    width: int,
) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    Upload.objects.create(
        batch=batch,
        collection=papers,
        name=f"{'long-' * 30}name.txt",
        size_bytes=5,
        checksum="0",
        state=UploadState.FAILED,
        message="The file is empty.",
    )
    page = open_signed_in("/collections/", width=width)
    base = "/collections/papers"
    addresses = ["/collections/", "/collections/new/", f"/uploads/{batch.uid}/", f"{base}/"]
    addresses += [f"{base}/{name}/" for name in ("documents", "uploads", "members", "settings")]
    for address in addresses:
        page.goto(address)
        assert accessibility_problems(page) == [], address
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
