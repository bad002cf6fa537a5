"""From received files to searchable passages: states, races, replacement, control."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections, transaction
from django.utils import timezone

from searchapp.engine import broker
from searchapp.ingest import control, pipeline, queueing
from searchapp.ingest.embedding import embed_pending
from searchapp.ingest.lease import LeaseLost, claim
from searchapp.ingest.progress import batch_progress
from searchapp.ingest.receive import receive
from searchapp.ingest.writing import DocumentWriter, delete_documents
from searchapp.models import (
    Collection,
    Document,
    DocumentStatus,
    Passage,
    PendingVector,
    Upload,
    UploadBatch,
    UploadState,
)
from searchapp.models.corpus import compose_indexed_text
from searchapp.search import erasing
from searchapp.search import pipeline as searching
from tests.locks import until_somebody_waits

from . import ingest_files as files

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """The messages to the workers, kept instead of sent: here the test is the worker."""
    messages: list[tuple[str, list[int]]] = []
    broker.connection().delete("default", "embed")  # what other tests sent and nobody read
    queueing.embedding_begins()
    monkeypatch.setattr(queueing, "_send", lambda name, args, queue: messages.append((name, args)))
    return messages


@pytest.fixture
def collection() -> Collection:
    return Collection.objects.create_with_owner(slug="papers", name="Papers")


def fake_vectors(texts: Sequence[str], model: str) -> np.ndarray:
    rows = []
    for text in texts:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        row = np.random.default_rng(seed).normal(size=384)
        rows.append(row / np.linalg.norm(row))
    return np.asarray(rows, dtype=np.float32).reshape(len(texts), 384)


def embed() -> None:
    embed_pending(fake_vectors)


def upload_of(collection: Collection, name: str, data: bytes, **fields: Any) -> Upload:
    batch = receive(collection, [(name, io.BytesIO(data))], **fields)
    return batch.uploads.get()


def ingested(collection: Collection, name: str, data: bytes) -> Upload:
    upload = upload_of(collection, name, data)
    work_off(upload.batch)
    upload.refresh_from_db()
    return upload


def work_off(batch: UploadBatch) -> None:
    waiting = batch.uploads.filter(state=UploadState.RECEIVED)
    while ids := list(waiting.values_list("pk", flat=True)):
        for pk in ids:
            assert pipeline.ingest(pk) != "busy"


def found(collection: Collection, query: str) -> list[str]:
    """Paths of the documents the lexical leg finds."""
    result = searching.start(query, collection, user=searching.operator())
    ids = [hit.document_id for hit in result.hits]
    paths = dict(Document.objects.filter(pk__in=ids).values_list("pk", "path"))
    return list(dict.fromkeys(paths[pk] for pk in ids))


def corpus(rows: int, word: str = "lemma") -> bytes:
    lines = [
        json.dumps({"_id": f"d{n}", "title": f"Row {n}", "text": f"{word} number{n} of many"})
        for n in range(rows)
    ]
    return "\n".join(lines).encode()


# --- from received to ready --------------------------------------------------------------------


def test_a_file_is_searchable_by_words_before_its_vectors_and_ready_after(collection) -> None:
    upload = ingested(collection, "a/notes.md", b"# Rivers\n\nThe Danube flows to the sea.\n")
    assert upload.state == UploadState.INDEXING
    assert (upload.documents_done, upload.passages_done) == (1, 1)
    document = Document.objects.get()
    assert (document.path, document.title, document.status) == ("a/notes.md", "Rivers", "indexing")
    assert found(collection, "danube") == ["a/notes.md"]
    assert PendingVector.objects.count() == 1
    embed()
    upload.refresh_from_db()
    document.refresh_from_db()
    assert (upload.state, document.status) == (UploadState.READY, DocumentStatus.READY)
    assert upload.finished_at is not None and upload.lease_token == ""


def test_passages_reproduce_their_document_with_pages_and_headings(collection) -> None:
    pages = ["Chapter one\n" + "water " * 30, "Chapter two\n" + "stone " * 30]
    ingested(collection, "book.pdf", files.pdf_bytes(pages, title="Book"))
    document = Document.objects.select_related("content").get()
    assert document.page_count == 2
    passages = list(document.passages.order_by("ordinal"))
    assert document.passage_count == len(passages)
    for passage in passages:
        assert document.content.text[passage.start : passage.end] == passage.text
    assert passages[0].page_first == 1 and passages[-1].page_last == 2
    assert passages[0].indexed_text == compose_indexed_text(
        "Book", passages[0].heading_path, passages[0].text
    )


def test_given_metadata_goes_to_every_document(collection) -> None:
    upload = upload_of(collection, "c.jsonl", corpus(3), metadata={"team": ["a", "b"]})
    pipeline.ingest(upload.pk)
    assert Document.objects.filter(metadata__team=["a", "b"], metadata__id="d1").count() == 1


def test_the_message_goes_out_after_the_commit(collection, sent) -> None:
    upload = upload_of(collection, "a.txt", b"words")
    assert (queueing.INGEST_TASK, [upload.pk]) in sent
    pipeline.ingest(upload.pk)
    assert (queueing.EMBED_TASK, []) in sent


def test_form_files_and_paths_are_received_alike(collection, tmp_path: Path) -> None:
    path = tmp_path / "disk.txt"
    path.write_text("from disk")
    form = SimpleUploadedFile("../../etc/form.txt", b"from a form")
    batch = receive(collection, [path, form, ("in/pair.txt", path.open("rb"))])
    names = list(batch.uploads.values_list("name", "state"))
    assert names == [
        ("disk.txt", "received"),
        ("form.txt", "received"),
        ("in/pair.txt", "duplicate"),
    ]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("C:\\Users\\x\\a.txt", "Users/x/a.txt"),
        ("/abs/a.txt", "abs/a.txt"),
        ("a\x00b\n.txt", "ab .txt"),
        ("..", "unnamed"),
        ("x" * 2000 + ".pdf", "x" * 896 + ".pdf"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    from searchapp.ingest.names import safe_name

    assert safe_name(name) == safe


# --- bad files -----------------------------------------------------------------------------------


def test_bad_files_fail_with_their_sentence_and_the_rest_goes_on(collection) -> None:
    batch = receive(
        collection,
        [
            ("empty.txt", io.BytesIO(b"")),
            ("broken.pdf", io.BytesIO(b"%PDF-1.4 no")),
            ("good.txt", io.BytesIO(b"good words")),
        ],
    )
    work_off(batch)
    embed()
    states = {upload.name: (upload.state, upload.message) for upload in batch.uploads.all()}
    assert states["empty.txt"] == ("failed", "The file is empty.")
    assert states["broken.pdf"][0] == "failed" and "damaged" in states["broken.pdf"][1]
    assert states["good.txt"] == ("ready", "")


def test_a_file_over_the_limit_is_refused_and_leaves_no_bytes(collection, settings) -> None:
    settings.MAX_UPLOAD_BYTES = 1024 * 1024
    upload = upload_of(collection, "big.txt", b"x" * (1024 * 1024 + 1))
    assert upload.state == UploadState.FAILED and not upload.retryable
    assert upload.message == "This file is larger than the 1 MB allowed."
    assert not upload.file
    folder = Path(settings.MEDIA_ROOT)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_random_bytes_under_any_name_never_break_the_pipeline(collection) -> None:
    rng = random.Random(5)
    names = ["pdf", "docx", "pptx", "xlsx", "html", "md", "txt", "csv", "tsv", "json", "zip", "gz"]
    incoming = [(f"f.{name}", io.BytesIO(rng.randbytes(400))) for name in names]
    batch = receive(collection, incoming)
    work_off(batch)
    embed()
    for upload in batch.uploads.all():
        assert upload.state in {UploadState.FAILED, UploadState.READY}, upload.name
        assert upload.message or upload.state == UploadState.READY
        assert "unexpected" not in upload.message


def test_an_unexpected_error_is_a_retryable_failure(collection, monkeypatch) -> None:
    def broken(self: DocumentWriter, document: Any) -> None:
        raise ZeroDivisionError

    upload = upload_of(collection, "a.txt", b"words")
    with monkeypatch.context() as patch:
        patch.setattr(DocumentWriter, "add", broken)
        assert pipeline.ingest(upload.pk) == UploadState.FAILED
    upload.refresh_from_db()
    assert upload.retryable and "ZeroDivisionError" in upload.message
    assert control.retry(upload)
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING


# --- duplicates and replacement ------------------------------------------------------------------


def test_the_same_bytes_again_are_a_duplicate_and_say_of_what(collection) -> None:
    first = ingested(collection, "one.txt", b"the same words")
    second = upload_of(collection, "two.txt", b"the same words")
    assert second.state == UploadState.DUPLICATE
    assert second.duplicate_of == first and "“one.txt”" in second.message
    assert not second.file
    assert Document.objects.count() == 1


def test_a_failed_or_cancelled_or_deleted_first_copy_does_not_count(collection) -> None:
    failed = ingested(collection, "bad.txt", b" ")
    assert failed.state == UploadState.FAILED
    assert upload_of(collection, "again.txt", b" ").state == UploadState.RECEIVED
    ready = ingested(collection, "one.txt", b"words here")
    embed()
    delete_documents(ready.documents.values_list("pk", flat=True))
    assert upload_of(collection, "one.txt", b"words here").state == UploadState.RECEIVED


def test_the_same_bytes_may_live_in_two_collections(collection) -> None:
    other = Collection.objects.create_with_owner(slug="other", name="Other")
    ingested(collection, "one.txt", b"shared")
    assert upload_of(other, "one.txt", b"shared").state == UploadState.RECEIVED


def test_two_copies_at_once_give_one_first(collection) -> None:
    barrier = threading.Barrier(4)

    def add(name: str) -> None:
        barrier.wait()
        try:
            receive(collection, [(name, io.BytesIO(b"raced bytes"))])
        finally:
            connections.close_all()

    threads = [threading.Thread(target=add, args=(f"{n}.txt",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = sorted(Upload.objects.values_list("state", flat=True))
    assert states == ["duplicate", "duplicate", "duplicate", "received"]


def test_a_new_file_at_the_same_path_replaces_the_old_document_whole(collection) -> None:
    ingested(collection, "a.txt", b"ancient zebra words")
    embed()
    old = Document.objects.get()
    ingested(collection, "a.txt", b"modern giraffe words")
    assert found(collection, "zebra") == []
    assert found(collection, "giraffe") == ["a.txt"]
    embed()
    new = Document.objects.get()
    assert new.pk != old.pk
    assert Passage.objects.count() == 1
    assert vector_count(collection) == 1


def test_a_new_version_of_a_table_removes_the_rows_it_no_longer_has(collection) -> None:
    ingested(collection, "other.jsonl", corpus(2, "walrus"))
    ingested(collection, "rows.jsonl", corpus(5, "zebra"))
    upload = ingested(collection, "rows.jsonl", corpus(3, "giraffe"))
    upload.refresh_from_db()
    assert upload.message.startswith("2 documents of the earlier version")
    assert found(collection, "zebra") == []
    assert len(found(collection, "giraffe")) == 3
    assert len(found(collection, "walrus")) == 2


def vector_count(collection: Collection) -> int:

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM searchapp_vector v JOIN searchapp_generation g "
            "ON g.id = v.generation_id WHERE g.collection_id = %s",
            [collection.pk],
        )
        return int(cursor.fetchone()[0])


def test_two_uploads_of_one_path_at_once_leave_one_document(collection) -> None:
    uploads = [upload_of(collection, "same.jsonl", corpus(40, word)) for word in ("alpha", "beta")]
    outcomes: list[str] = []

    def run(pk: int) -> None:
        try:
            outcomes.append(pipeline.ingest(pk))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(upload.pk,)) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["indexing", "indexing"]
    assert Document.objects.count() == 40
    embed()
    assert Passage.objects.count() == 40 == vector_count(collection)
    assert set(Upload.objects.values_list("state", flat=True)) == {"ready"}


# --- claims, leases, the sweep -----------------------------------------------------------------


def test_two_workers_claim_an_upload_once(collection) -> None:
    upload = upload_of(collection, "a.txt", b"words")
    barrier = threading.Barrier(6)
    claims: list[Any] = []

    def run() -> None:
        barrier.wait()
        try:
            claims.append(claim(upload.pk))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([entry for entry in claims if entry is not None]) == 1


def test_running_twice_is_running_once(collection) -> None:
    upload = ingested(collection, "a.txt", b"words")
    assert pipeline.ingest(upload.pk) == "busy"
    assert Document.objects.count() == 1


def expire(upload: Upload) -> None:
    Upload.objects.filter(pk=upload.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def test_the_sweep_requeues_a_dead_workers_upload_and_its_ghost_cannot_write(
    collection, sent
) -> None:
    upload = upload_of(collection, "a.txt", b"words")
    ghost = claim(upload.pk)
    assert ghost is not None
    assert control.sweep()["requeued"] == 0
    expire(upload)
    sent.clear()
    assert control.sweep()["requeued"] == 1
    assert (queueing.INGEST_TASK, [upload.pk]) in sent
    with pytest.raises(LeaseLost):
        ghost.renew()
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING
    with pytest.raises(LeaseLost):
        ghost.release(UploadState.FAILED)


def test_an_upload_that_kills_its_worker_is_given_up_in_the_end(collection) -> None:
    upload = upload_of(collection, "a.txt", b"words")
    for _ in range(control.MAX_ATTEMPTS):
        assert claim(upload.pk) is not None
        expire(upload)
        control.sweep()
    upload.refresh_from_db()
    assert upload.state == UploadState.FAILED and upload.retryable
    assert "stopped 3 times" in upload.message


def test_work_broken_off_in_the_middle_goes_on_without_redoing_documents(
    collection, monkeypatch
) -> None:
    upload = upload_of(collection, "c.jsonl", corpus(250))
    write = DocumentWriter._write
    calls: list[int] = []

    def dies_at_the_second(self: DocumentWriter, prepared: Any) -> None:
        calls.append(len(prepared))
        if len(calls) == 2:
            raise SystemExit  # as when the worker is stopped
        write(self, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(DocumentWriter, "_write", dies_at_the_second)
        with pytest.raises(SystemExit):
            pipeline.ingest(upload.pk)
    kept = set(Document.objects.values_list("pk", flat=True))
    assert len(kept) == 100
    expire(upload)
    control.sweep()
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING
    upload.refresh_from_db()
    assert (upload.documents_done, upload.passages_done) == (250, 250)
    assert kept < set(Document.objects.values_list("pk", flat=True))
    assert Document.objects.count() == 250


def test_the_sweep_sends_a_lost_message_again_when_the_queue_is_empty(collection, sent) -> None:
    upload = upload_of(collection, "a.txt", b"words")
    sent.clear()
    assert control.sweep()["resent"] == 0  # it may still be on its way
    Upload.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    assert control.sweep()["resent"] == 1
    assert sent == [(queueing.INGEST_TASK, [upload.pk])]


def test_the_sweep_finishes_what_an_embedder_did_not_report(collection, monkeypatch) -> None:
    upload = ingested(collection, "a.txt", b"words")
    with monkeypatch.context() as patch:
        patch.setattr("searchapp.ingest.embedding.finish_indexed", lambda ids: None)
        embed()
    upload.refresh_from_db()
    assert upload.state == UploadState.INDEXING
    control.sweep()
    upload.refresh_from_db()
    assert upload.state == UploadState.READY


def test_the_sweep_kicks_the_embedder_when_vectors_wait(collection, sent) -> None:
    ingested(collection, "a.txt", b"words")
    sent.clear()
    control.sweep()
    assert sent == [(queueing.EMBED_TASK, [])]


# --- archives ----------------------------------------------------------------------------------


def test_an_archive_is_ready_when_its_members_are_and_each_has_its_own_state(collection) -> None:
    inner = files.zip_bytes({"deep.txt": b"deep words", "more.zip": files.zip_bytes({"x": b"x"})})
    data = files.zip_bytes(
        {
            "one.txt": b"first words",
            "same.txt": b"first words",
            "bad.pdf": b"%PDF-1.4 no",
            "../evil.txt": b"no",
            "inner.zip": inner,
        }
    )
    upload = upload_of(collection, "all.zip", data)
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING
    work_off(upload.batch)
    embed()
    rows = {row.name: row for row in upload.batch.uploads.all()}
    states = {name: row.state for name, row in rows.items()}
    assert states == {
        "all.zip": "ready",
        "all.zip/one.txt": "ready",
        "all.zip/same.txt": "duplicate",
        "all.zip/bad.pdf": "failed",
        "all.zip/evil.txt": "failed",
        "all.zip/inner.zip": "ready",
        "all.zip/inner.zip/deep.txt": "ready",
        "all.zip/inner.zip/more.zip": "failed",
    }
    assert rows["all.zip"].message == "5 files: 2 read, 1 duplicates, 2 failed."
    assert "points outside" in rows["all.zip/evil.txt"].message
    assert "archive in an archive in an archive" in rows["all.zip/inner.zip/more.zip"].message
    member = rows["all.zip/one.txt"]
    assert member.parent_id == upload.pk
    assert default_storage.open(member.file.name).read() == b"first words"
    assert found(collection, "deep") == ["all.zip/inner.zip/deep.txt"]


def test_an_archive_without_a_readable_member_fails(collection) -> None:
    upload = ingested(collection, "bad.zip", files.zip_bytes({"a.pdf": b"%PDF-1.4 no"}))
    assert upload.state == UploadState.FAILED
    assert upload.message == "None of the 1 files in this archive could be read."


def test_the_limit_of_an_archive_holds_across_the_archives_inside(collection, settings) -> None:
    settings.MAX_EXPANDED_BYTES = 3 * 1024 * 1024
    inner = {f"{n}.zip": files.zip_bytes({"z.txt": bytes([65 + n]) * 2_000_000}) for n in range(3)}
    upload = upload_of(collection, "outer.zip", files.zip_bytes(inner))
    work_off(upload.batch)
    messages = " ".join(upload.batch.uploads.values_list("message", flat=True))
    assert "unpacks to more than" in messages
    unpacked = sum(
        upload.batch.uploads.filter(parent__parent=upload).values_list("size_bytes", flat=True)
    )
    assert unpacked <= 3 * 1024 * 1024


def test_an_archive_broken_off_hands_its_members_on_once(collection) -> None:
    upload = upload_of(collection, "a.zip", files.zip_bytes({"1.txt": b"one", "2.txt": b"two"}))
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING
    Upload.objects.filter(pk=upload.pk).update(state=UploadState.RECEIVED)  # as after a crash
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING
    assert upload.members.count() == 2


# --- pause, cancel, retry ----------------------------------------------------------------------


def test_a_paused_batch_waits_and_goes_on_where_it_stopped(collection, monkeypatch, sent) -> None:
    upload = upload_of(collection, "c.jsonl", corpus(250))
    write = DocumentWriter._write

    def pauses(self: DocumentWriter, prepared: Any) -> None:
        write(self, prepared)
        control.pause(upload.batch)

    with monkeypatch.context() as patch:
        patch.setattr(DocumentWriter, "_write", pauses)
        assert pipeline.ingest(upload.pk) == "paused"
    upload.refresh_from_db()
    assert upload.state == UploadState.RECEIVED and upload.lease_until is None
    assert Document.objects.count() == 100
    assert pipeline.ingest(upload.pk) == "busy"  # paused: nobody may claim it
    assert batch_progress(upload.batch).is_paused
    sent.clear()
    control.resume(upload.batch)
    assert (queueing.INGEST_TASK, [upload.pk]) in sent
    first = set(Document.objects.values_list("pk", flat=True))
    assert pipeline.ingest(upload.pk) == UploadState.INDEXING
    assert first < set(Document.objects.values_list("pk", flat=True))
    assert Document.objects.count() == 250


def test_cancelling_removes_what_was_indexed_and_keeps_finished_files(
    collection, monkeypatch
) -> None:
    batch = receive(
        collection,
        [("done.txt", io.BytesIO(b"finished words")), ("c.jsonl", io.BytesIO(corpus(250)))],
    )
    done, running = batch.uploads.order_by("id")
    pipeline.ingest(done.pk)
    embed()
    write = DocumentWriter._write

    def cancels(self: DocumentWriter, prepared: Any) -> None:
        write(self, prepared)
        control.cancel(batch)

    with monkeypatch.context() as patch:
        patch.setattr(DocumentWriter, "_write", cancels)
        assert pipeline.ingest(running.pk) == "lost"
    running.refresh_from_db()
    done.refresh_from_db()
    assert (running.state, done.state) == (UploadState.CANCELLED, UploadState.READY)
    assert list(Document.objects.values_list("path", flat=True)) == ["done.txt"]
    assert found(collection, "lemma") == []
    assert found(collection, "finished") == ["done.txt"]
    assert not running.file
    assert control.cancel(batch) == 0


def test_cancelling_one_member_finishes_its_archive(collection) -> None:
    upload = upload_of(collection, "a.zip", files.zip_bytes({"1.txt": b"one", "2.txt": b"two"}))
    pipeline.ingest(upload.pk)
    first, second = upload.members.order_by("id")
    pipeline.ingest(first.pk)
    embed()
    assert control.cancel_upload(second)
    assert not control.cancel_upload(second)
    upload.refresh_from_db()
    assert upload.state == UploadState.READY


def test_only_what_may_help_is_retried(collection) -> None:
    hopeless = ingested(collection, "e.txt", b"")
    assert not control.retry(hopeless)
    flaky = upload_of(collection, "a.txt", b"words")
    Upload.objects.filter(pk=flaky.pk).update(state=UploadState.FAILED, retryable=True)
    assert control.retry_failed(flaky.batch) == 1
    assert pipeline.ingest(flaky.pk) == UploadState.INDEXING


# --- progress ----------------------------------------------------------------------------------


def test_progress_counts_honestly_and_knows_no_rate_before_it_has_seen_one(collection) -> None:
    batch = receive(
        collection,
        [("a.jsonl", io.BytesIO(corpus(30))), ("b.jsonl", io.BytesIO(corpus(60, "other")))],
    )
    first, _ = batch.uploads.order_by("id")
    start = batch_progress(batch, clock=lambda: 1000.0)
    assert (start.files, start.files_open, start.passages) == (2, 2, 0)
    assert start.passages_per_second is None and start.seconds_left is None
    pipeline.ingest(first.pk)
    reading = batch_progress(batch, clock=lambda: 1001.0)
    assert (reading.documents, reading.passages, reading.vectors_pending) == (30, 30, 30)
    assert reading.passages_per_second is None
    embed()
    later = batch_progress(batch, clock=lambda: 1010.0)
    assert later.states["ready"] == 1 and later.vectors_pending == 0
    assert later.passages_per_second == pytest.approx(3.0)
    # b.jsonl is about twice as large, so about 60 passages at 3 a second.
    assert later.seconds_left == pytest.approx(20, rel=0.1)
    work_off(batch)
    embed()
    end = batch_progress(batch, clock=lambda: 1020.0)
    assert end.is_finished and end.passages_per_second is None
    assert end.as_json()["files_finished"] == 2


def test_an_upload_behind_a_backlog_of_another_collection_has_a_rate_and_a_time_left(
    collection,
) -> None:
    crowded = Collection.objects.create_with_owner(slug="crowded", name="Crowded")
    ingested(crowded, "a.jsonl", corpus(200, "crowd"))
    batch = ingested(collection, "b.jsonl", corpus(30)).batch
    batch_progress(batch, clock=lambda: 1000.0)
    for _ in range(2):  # batches of the embed worker
        embed_pending(fake_vectors, enough=lambda: True)
    assert PendingVector.objects.filter(generation__collection=crowded).count() > 150
    later = batch_progress(batch, clock=lambda: 1010.0)
    assert 0 < later.vectors_pending < 30
    assert later.passages_per_second == pytest.approx((30 - later.vectors_pending) / 10)
    assert later.seconds_left == pytest.approx(later.vectors_pending / later.passages_per_second)


def test_progress_takes_few_questions(collection, django_assert_max_num_queries) -> None:
    upload = ingested(collection, "a.jsonl", corpus(30))
    with django_assert_max_num_queries(5):
        batch_progress(upload.batch)


def test_a_collection_can_be_deleted_in_the_midst_of_its_ingest() -> None:
    """The worker holds its upload and wants the collection; the deletion wants both."""
    for attempt in range(4):
        collection = Collection.objects.create_with_owner(slug=f"doomed-{attempt}", name="Doomed")
        upload = upload_of(collection, "many.jsonl", corpus(300))
        lease = claim(upload.pk)
        assert lease is not None
        holds, erased = threading.Event(), threading.Event()

        def write(lease: Any = lease, collection: Any = collection, holds: Any = holds) -> None:
            try:
                with transaction.atomic():
                    lease.renew()
                    holds.set()
                    until_somebody_waits()
                    Document.objects.create(collection=collection, path="a", title="A")
            finally:
                connections.close_all()

        def erase(collection: Any = collection, holds: Any = holds, done: Any = erased) -> None:
            try:
                holds.wait(10)
                erasing.erase_collection(collection)
                done.set()
            finally:
                connections.close_all()

        threads = [threading.Thread(target=write), threading.Thread(target=erase)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert erased.is_set()
        assert not Collection.objects.filter(pk=collection.pk).exists()
        assert not Document.objects.exists() and not Upload.objects.exists()
