"""What every test shares. The servers are started by tests/servers.py, earlier than this."""

from __future__ import annotations

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.internal.conjecture import providers

# How long an example takes depends on what the other workers do. Each time the same examples, so
# that a change is not blamed for what chance found; `--hypothesis-profile=search` looks for more.
hypothesis_settings.register_profile("podium", deadline=None, derandomize=True)
hypothesis_settings.register_profile("search", deadline=None)
hypothesis_settings.load_profile("podium")


@pytest.fixture(scope="session", autouse=True)
def same_examples(pytestconfig: pytest.Config) -> None:
    """Hypothesis also tries constants of whatever project modules are loaded, which depends on the
    tests before in the same process; there is no setting for that."""
    if pytestconfig.getoption("--hypothesis-profile", None) != "search":
        none = providers.Constants()
        providers._get_local_constants = lambda: none


@pytest.fixture(autouse=True)
def plain_static_files(settings: object) -> None:
    """File names without hashes: tests do not run collectstatic first."""
    settings.STORAGES = {  # type: ignore[attr-defined]
        **settings.STORAGES,  # type: ignore[attr-defined]
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
