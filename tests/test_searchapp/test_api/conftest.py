"""The official client against a live server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from zeroentropy import AsyncZeroEntropy, ZeroEntropy

from searchapp.engine import broker
from tests.callers import make_key


@pytest.fixture
def clean_broker() -> Iterator[None]:
    broker.connection().flushdb()
    yield
    broker.connection().flushdb()


@pytest.fixture
def olive(transactional_db: None) -> User:
    return User.objects.create_user("olive")


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    return Path(settings.MEDIA_ROOT)


@pytest.fixture
def client_of(live_server: Any, clean_broker: None) -> Callable[..., ZeroEntropy]:
    """`client_of(user, *scopes, collections=…)`: the official client with a new key."""

    def make(user: User, *scopes: str, max_retries: int = 0, **key: Any) -> ZeroEntropy:
        return ZeroEntropy(
            api_key=make_key(user, *scopes, **key)[1],
            base_url=f"{live_server.url}/v1",
            max_retries=max_retries,
        )

    return make


@pytest.fixture
def async_client_of(live_server: Any, clean_broker: None) -> Callable[..., AsyncZeroEntropy]:
    def make(user: User, *scopes: str, max_retries: int = 0, **key: Any) -> AsyncZeroEntropy:
        return AsyncZeroEntropy(
            api_key=make_key(user, *scopes, **key)[1],
            base_url=f"{live_server.url}/v1",
            max_retries=max_retries,
        )

    return make
