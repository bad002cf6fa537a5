"""The administration: every page opens, deletion leaves nothing behind, records stay records."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from searchapp.models import (
    Collection,
    Document,
    Passage,
    Posting,
    Role,
    SavedQuery,
    SearchConfig,
    Trace,
    Upload,
    UploadBatch,
    UploadState,
)
from searchapp.search import configs
from tests.shelves import add_document, make_collection

MODELS = sorted(
    f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry
)


@pytest.fixture
def client(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def birds(db: None) -> Collection:
    collection = make_collection("birds")
    add_document(collection, "Herons", ["grey", "tall"])
    batch = UploadBatch.objects.create(collection=collection)
    Upload.objects.create(
        batch=batch, collection=collection, name="a.txt", size_bytes=1, checksum="0" * 64
    )
    SavedQuery.objects.create(collection=collection, text="grey")
    Trace.objects.create(collection=collection, config=collection.active_config, query="grey")
    return collection


@pytest.mark.parametrize("name", MODELS)
def test_every_list_and_every_form_opens(client: Client, birds: Collection, name: str) -> None:
    url = reverse(f"admin:{name}_changelist")
    assert client.get(url).status_code == 200
    assert client.get(f"{url}?q=a").status_code == 200
    model = next(
        m for m in admin.site._registry if f"{m._meta.app_label}_{m._meta.model_name}" == name
    )
    adds = admin.site._registry[model].has_add_permission(client.get(url).wsgi_request)
    assert client.get(reverse(f"admin:{name}_add")).status_code == (200 if adds else 403)
    row = model._default_manager.first()
    if row is not None:
        change = client.get(reverse(f"admin:{name}_change", args=[row.pk]))
        assert change.status_code == 200
        assert "Traceback" not in change.content.decode()


def test_the_administration_is_closed_to_others(birds: Collection) -> None:
    client = Client()
    client.force_login(User.objects.create_user("someone"))
    response = client.get(reverse("admin:searchapp_document_changelist"))
    assert response.status_code == 302


@pytest.mark.parametrize("name", ["document", "upload", "uploadbatch", "trace", "collection"])
def test_lists_take_few_queries(
    client: Client, birds: Collection, name: str, django_assert_max_num_queries: object
) -> None:
    batch = UploadBatch.objects.get()
    for number in range(30):
        Document.objects.create(collection=birds, path=f"{number}.txt")
        Upload.objects.create(
            batch=batch, collection=birds, name=f"{number}", size_bytes=1, checksum="1" * 64
        )
        Trace.objects.create(collection=birds, config=birds.active_config, query="grey")
    with django_assert_max_num_queries(15):  # type: ignore[operator]
        client.get(reverse(f"admin:searchapp_{name}_changelist"))


def test_a_collection_made_here_has_its_first_version_and_its_members(client: Client) -> None:
    user = User.objects.create_user("olive")
    data = {
        "name": "Birds",
        "slug": "birds",
        "language": "en",
        "suggested_queries": "[]",
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0",
        "memberships-0-user": user.pk,
        "memberships-0-role": "owner",
    }
    response = client.post(reverse("admin:searchapp_collection_add"), data)
    assert response.status_code == 302, response.context["adminform"].errors
    made = Collection.objects.get()
    assert made.active_config is not None
    assert made.active_config.frozen_at is not None
    assert made.memberships.get().role == Role.OWNER
    assert made.created_by.username == "root"


def test_deleting_documents_here_deletes_their_passages_and_postings(
    client: Client, birds: Collection
) -> None:
    other = add_document(birds, "Gulls", ["white"])
    herons = birds.documents.get(title="Herons")
    data = {
        "action": "delete_selected",
        "_selected_action": [herons.pk],
        "post": "yes",
    }
    asked = client.post(
        reverse("admin:searchapp_document_changelist"), {**data, "post": ""} | {"post": []}
    )
    assert "Are you sure" in asked.content.decode()
    client.post(reverse("admin:searchapp_document_changelist"), data)
    assert list(birds.documents.all()) == [other]
    assert Passage.objects.count() == 1
    response = client.post(
        reverse("admin:searchapp_document_delete", args=[other.pk]), {"post": "yes"}
    )
    assert response.status_code == 302
    assert not Passage.objects.exists()


def test_deleting_a_collection_here_deletes_its_index(client: Client, birds: Collection) -> None:
    client.post(reverse("admin:searchapp_collection_delete", args=[birds.pk]), {"post": "yes"})
    assert not Collection.objects.exists()
    assert not Posting.objects.exists()
    assert not Trace.objects.exists()


def test_many_files_are_uploaded_at_once(client: Client, birds: Collection) -> None:
    url = reverse("admin:searchapp_collection_upload", args=[birds.pk])
    assert "multiple" in client.get(url).content.decode()
    files = [SimpleUploadedFile(f"{name}.txt", name.encode()) for name in ("one", "two")]
    files.append(SimpleUploadedFile("empty.txt", b""))
    response = client.post(url, {"chosen": files}, follow=True)
    assert response.status_code == 200
    batch = UploadBatch.objects.order_by("-pk")[0]
    assert sorted(batch.uploads.values_list("name", flat=True)) == [
        "empty.txt",
        "one.txt",
        "two.txt",
    ]
    assert "3 files are received" in response.content.decode()
    assert client.post(url, {}).status_code == 200  # the form again, with its error


def test_batches_and_uploads_are_paused_cancelled_and_retried(
    client: Client, birds: Collection
) -> None:
    batch = UploadBatch.objects.get()
    url = reverse("admin:searchapp_uploadbatch_changelist")
    for action, paused in (("pause", True), ("resume", False)):
        client.post(url, {"action": action, "_selected_action": [batch.pk]})
        batch.refresh_from_db()
        assert batch.paused is paused
    upload = batch.uploads.get()
    uploads = reverse("admin:searchapp_upload_changelist")
    client.post(uploads, {"action": "cancel", "_selected_action": [upload.pk]})
    upload.refresh_from_db()
    assert upload.state == UploadState.CANCELLED
    Upload.objects.update(state=UploadState.FAILED, retryable=True, file="uploads/x")
    client.post(uploads, {"action": "retry", "_selected_action": [upload.pk]})
    upload.refresh_from_db()
    assert upload.state == UploadState.RECEIVED


def test_frozen_versions_and_records_cannot_be_changed_here(
    client: Client, birds: Collection
) -> None:
    frozen = birds.active_config
    url = reverse("admin:searchapp_searchconfig_change", args=[frozen.pk])
    assert client.post(url, {"instruction": "new"}).status_code == 403
    draft = configs.draft_for(birds, None)
    page = client.get(reverse("admin:searchapp_searchconfig_change", args=[draft.pk]))
    assert 'name="instruction"' in page.content.decode()
    trace = Trace.objects.get()
    for action in ("change", "delete"):
        address = reverse(f"admin:searchapp_trace_{action}", args=[trace.pk])
        assert client.post(address, {"query": "other", "post": "yes"}).status_code == 403
    assert SearchConfig.objects.get(pk=frozen.pk).instruction == ""
