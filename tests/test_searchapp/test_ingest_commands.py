"""import_documents and load_demo, run as people run them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from searchapp.ingest import demo, demo_packages, demo_python, queueing
from searchapp.ingest.extract.records import ExtractedDocument, from_json
from searchapp.ingest.inline import finish_here
from searchapp.ingest.receive import receive
from searchapp.models import (
    Collection,
    Document,
    PendingVector,
    Upload,
    UploadBatch,
    UploadState,
)
from searchapp.search.erasing import erase_collection

from . import ingest_files as files

ROOT = Path(__file__).resolve().parents[2]
database = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quiet(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.VAR_DIR = tmp_path
    monkeypatch.setattr(queueing, "_send", lambda *_: None)


@database
def test_a_folder_of_good_and_bad_files_is_imported_here_and_its_failures_listed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    (folder / "good.md").write_text("# Good\n\nWords to be found.\n")
    (folder / "deep" / "notes.docx").write_bytes(files.docx_bytes())
    (folder / "rows.zip").write_bytes(files.zip_bytes({"r.csv": b"id,text\n1,one\n2,two\n"}))
    (folder / "copy.md").write_text("# Good\n\nWords to be found.\n")
    (folder / "empty.txt").write_text("")
    (folder / ".hidden").write_text("not for import")
    out = StringIO()
    with pytest.raises(CommandError, match=r"1 of 6 files failed\."):
        call_command("import_documents", "fresh", str(folder), "--create", "--here", stdout=out)
    lines = out.getvalue().splitlines()
    assert any(line.startswith("failed     mixed/empty.txt: The file is empty.") for line in lines)
    assert any("duplicate" in line and "mixed/good.md" in line for line in lines)
    assert "4 documents" in lines[-1] and "4 ready" in lines[-1]
    assert sorted(Document.objects.values_list("path", "status")) == [
        ("mixed/copy.md", "ready"),
        ("mixed/deep/notes.docx", "ready"),
        ("mixed/rows.zip/r.csv#1", "ready"),
        ("mixed/rows.zip/r.csv#2", "ready"),
    ]
    assert not PendingVector.objects.exists()


@database
def test_a_file_that_a_dead_worker_held_is_read_here() -> None:
    collection = Collection.objects.create_with_owner(slug="held", name="Held")
    content = SimpleUploadedFile("held.txt", b"Words to be found.")
    batch = receive(collection, [content], enqueue=False)
    gone = timezone.now() - timedelta(minutes=1)
    batch.uploads.update(state=UploadState.PARSING, lease_token="x", lease_until=gone, attempts=1)
    work = threading.Thread(target=_finish_and_close, args=[batch], daemon=True)
    work.start()
    work.join(60)
    assert not work.is_alive()
    assert batch.uploads.get().state == UploadState.READY


def _finish_and_close(batch: UploadBatch) -> None:
    try:
        finish_here(batch)
    finally:
        connections.close_all()


@database
def test_wrong_arguments_are_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Add --create"):
        call_command("import_documents", "none", str(tmp_path))
    Collection.objects.create_with_owner(slug="some", name="Some")
    with pytest.raises(CommandError, match="no such file or folder"):
        call_command("import_documents", "some", str(tmp_path / "missing"))
    with pytest.raises(CommandError, match="no user 'nobody'"):
        call_command("import_documents", "some", str(tmp_path), "--user", "nobody")


TINY = replace(demo.DEMOS[0], module="tests.test_searchapp.tiny_demo")


@database
def test_the_demo_is_public_searchable_by_words_and_made_once() -> None:
    first = demo.load(TINY)
    assert (first.documents, first.passages) == (3, 3)
    collection = Collection.objects.get(slug="python-docs")
    assert collection.is_public and len(collection.suggested_queries) == 6
    ids = set(Document.objects.values_list("pk", flat=True))
    assert demo.load(TINY).documents == 0
    assert set(Document.objects.values_list("pk", flat=True)) == ids


@database
def test_a_demo_broken_off_goes_on_and_a_new_edition_replaces_the_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    demo.load(TINY)
    Upload.objects.update(state=UploadState.FAILED)
    Document.objects.filter(path="re.sub").delete()
    assert demo.load(TINY).documents == 3
    Document.objects.filter(path="re.sub").update(path="gone.in.the.next")
    newer = replace(TINY, edition=lambda: "Python 9 documentation")
    assert demo.load(newer).documents == 3
    assert sorted(Document.objects.values_list("path", flat=True)) == [
        "json.dumps",
        "os.path.join",
        "re.sub",
    ]


@database
def test_a_deleted_demo_stays_away_from_later_starts_until_somebody_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "DEMOS", (TINY,))

    def start(*options: str) -> str:
        out = StringIO()
        call_command("load_demo", "--no-vectors", *options, stdout=out)
        return out.getvalue()

    assert "3 documents" in start("--leave-deleted")
    assert "already there" in start("--leave-deleted")
    erase_collection(Collection.objects.get())
    assert "load_demo` brings it back" in start("--leave-deleted")
    assert not Collection.objects.exists()
    assert "3 documents" in start()


@database
def test_a_demo_broken_off_goes_on_and_an_emptied_data_folder_begins_anew(
    monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    broken = replace(TINY, module="tests.test_searchapp.no_such_module")
    with pytest.raises(RuntimeError):
        demo.load(broken)
    assert not demo.is_deleted(TINY)
    Upload.objects.update(state=UploadState.FAILED)
    assert demo.load(TINY).documents == 3
    erase_collection(Collection.objects.get())
    assert demo.is_deleted(TINY)
    settings.VAR_DIR = tmp_path / "emptied"
    assert not demo.is_deleted(TINY)
    settings.VAR_DIR = tmp_path
    Migration = MigrationRecorder.Migration
    made = Migration.objects.order_by("id")[0]
    kept = made.applied
    try:
        Migration.objects.filter(pk=made.pk).update(applied=kept + timedelta(days=1))
        assert not demo.is_deleted(TINY), "another database"
    finally:
        Migration.objects.filter(pk=made.pk).update(applied=kept)


def test_the_library_is_read_without_a_trace_and_with_respectable_titles() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "searchapp.ingest.demo_python"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    documents = [from_json(json.loads(line)) for line in found.stdout.splitlines()]
    assert all(isinstance(document, ExtractedDocument) for document in documents)
    titles = {document.title: document for document in documents}  # type: ignore[union-attr]
    assert len(documents) > 2500
    for title in ("os.path.join", "str.split", "json.dumps", "The try statement", "heapq.merge"):
        assert title in titles, title
    assert titles["os.path.join"].metadata["kind"] == "function"  # type: ignore[union-attr]
    paths = [document.path for document in documents]  # type: ignore[union-attr]
    assert len(set(paths)) == len(paths)


def test_underlined_lines_of_a_topic_become_headings() -> None:
    text, headings = demo_python.headed('The "if" statement\n******************\n\nBody.\n')
    assert text == "The if statement\n\nBody.\n"
    assert [(h.offset, h.level, h.title) for h in headings] == [(0, 1, "The if statement")]


def test_package_documentation_is_read_without_importing_the_package() -> None:
    code = (
        "import sys\n"
        "from searchapp.ingest import demo_packages as d\n"
        "package = next(p for p in d.PACKAGES if p.package == 'django')\n"
        "titles = {x.title for x in d.documents(package)}\n"
        "assert 'django.db.models.QuerySet.bulk_create' in titles, sorted(titles)[:50]\n"
        "assert 'django' not in sys.modules\n"
        "print(len(titles))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 500
    assert "Django" in demo_packages.versions()
