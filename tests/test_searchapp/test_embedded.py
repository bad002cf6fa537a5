"""The embedded servers, started for this session by tests/servers.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection

from searchapp.embedded.children import yield_to_others
from searchapp.embedded.servers import provided
from searchapp.models import Collection, Membership, Role


@pytest.mark.django_db
def test_a_collection_is_made_with_its_owner_on_a_real_database() -> None:
    user = get_user_model().objects.create_user("ann")
    collection = Collection.objects.create_with_owner(slug="first", name="First", user=user)
    assert connection.vendor == "postgresql"
    assert Membership.objects.get(collection=collection).role == Role.OWNER
    with connection.cursor() as cursor:
        cursor.execute("SELECT '[1,2]'::vector <-> '[1,3]'::vector")
        assert cursor.fetchone() == (1.0,)


def test_the_servers_let_nobody_in_without_the_password() -> None:
    import psycopg
    import redis

    host, port = settings.DATABASES["default"]["HOST"], settings.DATABASES["default"]["PORT"]
    assert settings.DATABASES["default"]["PASSWORD"]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://podium@{host}:{port}/postgres", connect_timeout=5)
    assert redis.Redis.from_url(settings.REDIS_URL).ping()
    open_url = f"redis://{settings.REDIS_URL.rsplit('@', 1)[1]}"
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url(open_url).ping()


def test_a_file_with_the_address_names_another_server_as_the_variable_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL_FILE", raising=False)
    assert not provided("DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/database_url")
    assert provided("DATABASE_URL")


def _weight(pid: int) -> str:
    """The priority of the process' whole session, as Linux tells it."""
    file = Path(f"/proc/{pid}/autogroup")
    if not file.is_file():
        pytest.skip("this system does not weigh sessions against each other")
    return file.read_text().split("nice ")[1].strip()


IDLE = "input()"
# What a shell does with a worker, and the worker with the process of its pool.
STARTS_ONE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize(
    ("program", "arguments", "lowered"),
    [(IDLE, [], True), (STARTS_ONE, [IDLE], True), (STARTS_ONE, [STARTS_ONE, IDLE], False)],
    ids=["its own session", "its parent's session", "a terminal's session"],
)
def test_yielding_lowers_no_session_that_is_not_ours(
    program: str, arguments: list[str], lowered: bool
) -> None:
    """A worker started from a terminal must not slow down what else runs there."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        try:
            pid = leader.pid
            for _ in arguments:
                pid = int(leader.stdout.readline())
            before = _weight(leader.pid)
            yield_to_others(pid, 7)
            assert psutil.Process(pid).nice() >= 7
            assert _weight(leader.pid) == ("7" if lowered else before)
        finally:
            os.killpg(leader.pid, signal.SIGKILL)
