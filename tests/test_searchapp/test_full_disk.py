"""A server without space left says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from searchapp.models import Collection, Upload

pytestmark = pytest.mark.django_db


class FullStorage(FileSystemStorage):
    """Stores on a device that is full: every write to it fails with ENOSPC."""

    def _save(self, name: str, content: Any) -> str:
        with Path("/dev/full").open("wb", buffering=0) as device:
            for chunk in content.chunks():
                device.write(chunk)
        raise AssertionError("the write should have failed")


@pytest.fixture
def collection(client: Client) -> Collection:
    owner = get_user_model().objects.create_user("ada", password="pass")
    client.force_login(owner)
    client.raise_request_exception = False
    return Collection.objects.create_with_owner(slug="papers", name="Papers", user=owner)


def send(client: Client) -> Any:
    file = SimpleUploadedFile("a.txt", b"words")
    return client.post(reverse("collection_uploads", args=["papers"]), {"files": [file]})


def test_an_upload_on_a_full_disk_is_refused_in_words(
    client: Client, collection: Collection, settings: Any
) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "tests.test_searchapp.test_full_disk.FullStorage"},
    }
    response = send(client)
    assert response.status_code == 507
    assert "disk of this server is full" in response.content.decode()
    assert not Upload.objects.exists()


def test_a_database_out_of_space_is_told_apart_from_other_failures(
    client: Client, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_with(cause: Exception) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise OperationalError("could not extend file") from cause

        monkeypatch.setattr("searchapp.views.uploads.receive", refuse)

    fail_with(psycopg.errors.DiskFull("No space left on device"))
    assert send(client).status_code == 507
    fail_with(psycopg.errors.AdminShutdown("stopping"))
    assert send(client).status_code == 500
