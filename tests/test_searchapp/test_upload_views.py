"""The upload pages: files arrive in one batch whatever they are, and the list tells of each."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import F
from django.test import Client
from django.urls import reverse

from searchapp.ingest.pipeline import ingest
from searchapp.models import Collection, Upload, UploadBatch, UploadState
from searchapp.views.uploads import time_left
from tests.people import People, make_people
from tests.shelves import make_collection

JSON = {"HTTP_ACCEPT": "application/json"}


@pytest.fixture
def papers(db: None) -> Collection:
    return make_collection("papers", is_public=False)


@pytest.fixture
def people(papers: Collection) -> People:
    return make_people(papers)


@pytest.fixture
def client(people: People) -> Client:
    return people.client("editor")


URL = "/collections/papers/uploads/"


def text_file(name: str, content: bytes = b"") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content or f"The text of {name}.".encode())


def make_uploads(batch: UploadBatch, count: int, **fields: object) -> list[Upload]:
    start = batch.uploads.count()
    return Upload.objects.bulk_create(
        Upload(
            batch=batch,
            collection=batch.collection,
            name=f"file {start + number}.txt",
            size_bytes=10,
            checksum=f"{start + number:064d}",
            **fields,
        )
        for number in range(count)
    )


def test_files_of_a_plain_form_become_one_batch(papers: Collection, client: Client) -> None:
    response = client.post(URL, {"files": [text_file("a.txt"), text_file("b.txt")]})
    batch = UploadBatch.objects.get()
    assert response.url == reverse("upload_batch", args=[batch.uid])
    assert sorted(batch.uploads.values_list("name", flat=True)) == ["a.txt", "b.txt"]
    assert batch.created_by.username == "editor"


def test_several_requests_fill_one_batch_and_keep_folders(
    papers: Collection, client: Client
) -> None:
    opened = client.post(URL, {"action": "open"}, **JSON).json()
    for path in ("reports/2026/a.txt", "reports/b.txt"):
        data = {
            "files": [text_file("x.txt", path.encode())],
            "path": [path],
            "batch": opened["batch"],
        }
        answer = client.post(URL, data, **JSON)
        assert answer.json() == opened
    batch = UploadBatch.objects.get()
    assert sorted(batch.uploads.values_list("name", flat=True)) == [
        "reports/2026/a.txt",
        "reports/b.txt",
    ]


def test_no_files_and_foreign_batches_are_refused_in_words(
    papers: Collection, client: Client, people: People
) -> None:
    assert client.post(URL, {}, **JSON).json() == {"message": "Choose at least one file."}
    assert "Choose at least one file." in client.post(URL, {}, follow=True).content.decode()
    foreign = UploadBatch.objects.create(collection=make_collection("other"))
    data = {"files": [text_file("a.txt")], "batch": str(foreign.uid)}
    assert client.post(URL, data, **JSON).status_code == 404
    assert client.post(URL, {**data, "batch": "odd"}, **JSON).status_code == 404
    assert not Upload.objects.exists()


def test_too_large_the_same_again_and_empty_are_told_one_by_one(
    papers: Collection, client: Client, settings: object
) -> None:
    settings.MAX_UPLOAD_BYTES = 1024 * 1024  # type: ignore[attr-defined]
    files = [
        text_file("large.txt", b"x" * (1024 * 1024 + 1)),
        text_file("first.txt", b"the same bytes"),
        text_file("second.txt", b"the same bytes"),
    ]
    page = client.post(URL, {"files": files}, follow=True).content.decode()
    assert "This file is larger than the 1 MB allowed." in page
    assert "The same bytes were uploaded before as “first.txt”" in page
    states = dict(Upload.objects.values_list("name", "state"))
    assert states == {"large.txt": "failed", "first.txt": "received", "second.txt": "duplicate"}


def test_a_batch_tells_of_good_bad_and_nested_files(papers: Collection, client: Client) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("inner/one.md", "# One\n\nA member of the archive.")
        zipped.writestr("inner/torn.pdf", b"%PDF-1.7 torn")
    files = [
        text_file("good.txt", b"Herons wade through the marsh."),
        text_file("broken.pdf", b"%PDF-1.7\nnothing"),
        text_file("pack.zip", archive.getvalue()),
    ]
    client.post(URL, {"files": files})
    batch = UploadBatch.objects.get()
    for _ in range(2):
        for upload in batch.uploads.filter(state=UploadState.RECEIVED):
            ingest(upload.pk)
    response = client.get(reverse("upload_batch", args=[batch.uid]))
    rows = response.context["rows"]
    # Failures first, wherever they came from; the good member right below its archive.
    assert [(row.name, row.upload.state == "failed", row.nested) for row in rows] == [
        ("broken.pdf", True, False),
        ("inner/torn.pdf", True, False),
        ("good.txt", False, False),
        ("pack.zip", False, False),
        ("inner/one.md", False, True),
    ]
    page = response.content.decode()
    assert "This PDF is damaged and cannot be opened." in page
    assert response.context["progress"].documents == 2
    assert reverse("document", args=[rows[2].document_uid]) in page
    fragment = client.get(reverse("upload_batch_status", args=[batch.uid])).content.decode()
    assert "<html" not in fragment
    assert "damaged" in fragment


def test_thousands_of_files_are_paged_and_filtered_with_few_queries(
    papers: Collection, client: Client, django_assert_max_num_queries: object
) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    make_uploads(batch, 2500, state=UploadState.READY, documents_done=1)
    make_uploads(batch, 3, state=UploadState.FAILED, message="Torn.", retryable=True)
    url = reverse("upload_batch", args=[batch.uid])
    with django_assert_max_num_queries(16):  # type: ignore[operator]
        response = client.get(url)
    assert len(response.context["rows"]) == 100
    assert [row.upload.state for row in response.context["rows"]][:4] == [*["failed"] * 3, "ready"]
    assert [(tab.label, tab.count) for tab in response.context["tabs"]] == [
        ("All", 2503),
        ("Failed", 3),
        ("Ready", 2500),
    ]
    failed = client.get(f"{url}?state=failed")
    assert len(failed.context["rows"]) == 3
    assert len(client.get(f"{url}?page=26").context["rows"]) == 3
    assert client.get(f"{url}?state=odd&page=no").status_code == 200


def test_a_batch_is_paused_resumed_and_cancelled(papers: Collection, client: Client) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    make_uploads(batch, 2)
    make_uploads(batch, 1, state=UploadState.READY)
    url = reverse("upload_batch", args=[batch.uid])
    page = client.post(url, {"action": "pause", "state": "waiting"}, follow=True)
    assert page.redirect_chain[0][0] == f"{url}?state=waiting"
    assert "paused" in page.content.decode()
    batch.refresh_from_db()
    assert batch.paused
    answer = client.post(url, {"action": "resume"}, **JSON).json()
    assert answer == {"message": "Going on where it stopped."}
    client.post(url, {"action": "cancel"})
    states = sorted(batch.uploads.values_list("state", flat=True))
    assert states == ["cancelled", "cancelled", "ready"]
    assert client.post(url, {"action": "explode"}).status_code == 403


def test_failed_files_are_retried_one_or_all(papers: Collection, client: Client) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    fields = {"state": UploadState.FAILED, "file": "uploads/x"}
    first, second = make_uploads(batch, 2, retryable=True, **fields)
    (hopeless,) = make_uploads(batch, 1, retryable=False, **fields)
    url = reverse("upload_batch", args=[batch.uid])
    message = client.post(url, {"retry": first.pk}, **JSON).json()["message"]
    assert message == "file 0.txt will be read again."
    message = client.post(url, {"retry": hopeless.pk}, **JSON).json()["message"]
    assert "nothing to retry" in message
    message = client.post(url, {"action": "retry-failed"}, **JSON).json()["message"]
    assert message == "1 file is tried again."
    received = batch.uploads.filter(state=UploadState.RECEIVED).values_list("pk", flat=True)
    assert set(received) == {first.pk, second.pk}
    other = UploadBatch.objects.create(collection=papers)
    (foreign,) = make_uploads(other, 1, retryable=True, **fields)
    assert client.post(url, {"retry": foreign.pk}).status_code == 404


def test_the_uploads_page_lists_earlier_batches_but_no_empty_ones(
    papers: Collection, client: Client
) -> None:
    UploadBatch.objects.create(collection=papers)
    batch = UploadBatch.objects.create(collection=papers)
    make_uploads(batch, 3, state=UploadState.FAILED)
    make_uploads(UploadBatch.objects.create(collection=make_collection("other")), 1)
    response = client.get(URL)
    assert [(row.pk, row.files, row.failed) for row in response.context["page"]] == [
        (batch.pk, 3, 3)
    ]


def test_the_drop_zone_names_the_limits_it_checks(papers: Collection, client: Client) -> None:
    page = client.get(URL).content.decode()
    assert 'data-file-bytes="209715200"' in page
    assert "Up to 200 MB a file" in page
    assert 'enctype="multipart/form-data"' in page
    assert "multiple" in page


def test_names_of_files_are_escaped(papers: Collection, client: Client) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    make_uploads(batch, 1, message="<i>odd</i>")
    Upload.objects.update(name="<script>alert(1)</script>.txt", created_at=F("created_at"))
    page = client.get(reverse("upload_batch", args=[batch.uid])).content.decode()
    assert "<script>alert" not in page
    assert "<i>odd" not in page


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.2, "1 s"), (40, "40 s"), (89, "89 s"), (600, "10 min"), (11100, "3 h 5 min")],
)
def test_time_left_is_told_in_the_largest_fitting_unit(seconds: float | None, words: str) -> None:
    assert time_left(seconds) == words


def test_answers_to_scripts_are_json(papers: Collection, client: Client) -> None:
    answer = client.post(URL, {"action": "open"}, **JSON)
    assert answer["Content-Type"] == "application/json"
    assert set(json.loads(answer.content)) == {"batch", "url", "status"}


def test_a_number_too_long_to_be_a_row_is_no_row(papers: Collection, client: Client) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    url = reverse("upload_batch", args=[batch.uid])
    assert client.post(url, {"retry": "9" * 5000}, **JSON).status_code == 404
    table = reverse("collection_documents", args=[papers.slug])
    for number in ("9" * 30, "9" * 5000):
        assert client.post(table, {"action": "retry", "document": number}).status_code == 302
