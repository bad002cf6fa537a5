"""What every test shares. The servers are started by tests/servers.py, earlier than this."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def plain_static_files(settings: object) -> None:
    """File names without hashes: tests do not run collectstatic first."""
    settings.STORAGES = {  # type: ignore[attr-defined]
        **settings.STORAGES,  # type: ignore[attr-defined]
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
