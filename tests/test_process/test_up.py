"""`manage.py up` with real servers, web and workers. The tests of this file are one story, in
order, because each start loads the models."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import psycopg
import pytest

from searchapp.embedded.state import read_state
from tests.ports import free_port

from .stack import ROOT, Stack, own_environment, processes_of, run_up, wait_for

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("up") / "var"
    yield folder
    remove_home(folder)


def remove_home(var: Path) -> None:
    """As root the servers' data lies where their own user can reach it."""
    if home := read_state(var).get("home"):
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(var: Path) -> Iterator[Stack]:
    stack = Stack(var)
    try:
        stack.wait_until_ready()
        yield stack
    finally:
        stack.end()


def test_everything_answers_once_it_is_ready(stack: Stack) -> None:
    assert stack.get("/healthz")[0] == 200
    status, body = stack.get("/readyz")
    assert status == 200, body
    for check in ("database", "broker", "rerank_worker", "embed_worker", "default_worker"):
        assert f'"{check}": {{' in body
    assert '"ok": false' not in body
    status, page = stack.get("/")
    assert status == 200
    stylesheet = page.split('rel="stylesheet" href="')[1].split('"')[0]
    assert stack.get(stylesheet)[0] == 200
    assert 'podium_workers{queue="gpu"} 1.0' in stack.get("/metrics")[1]


def test_the_administrator_signs_in_with_the_given_password(stack: Stack) -> None:
    browser = build_opener(HTTPCookieProcessor(cookies := CookieJar()))
    address = f"http://127.0.0.1:{stack.port}/admin/login/"
    browser.open(address, timeout=10).read()
    token = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = {
        "username": "admin",
        "password": "a long test password",
        "csrfmiddlewaretoken": token,
        "next": "/admin/",
    }
    answer = browser.open(Request(address, urlencode(form).encode()), timeout=10)
    assert answer.url.endswith("/admin/")
    assert "a long test password" not in stack.output


def test_a_second_start_on_the_same_data_is_refused(stack: Stack) -> None:
    refused = run_up(stack.var, free_port())
    assert refused.returncode == 1
    assert f"already runs on the data in {stack.var}" in refused.stderr
    assert str(stack.port) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert stack.is_ready()


def test_a_port_in_use_is_said_with_its_owner(stack: Stack, tmp_path: Path) -> None:
    refused = run_up(tmp_path / "other", stack.port)
    assert refused.returncode == 1
    assert f"Port {stack.port} is in use by another Podium" in refused.stderr
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused = run_up(tmp_path / "other", port)
    assert refused.returncode == 1
    assert f"Port {port} is in use by another program" in refused.stderr
    assert not processes_of(tmp_path / "other")


def test_a_killed_web_process_comes_back(stack: Stack) -> None:
    web = stack.child("gunicorn")
    web.kill()
    wait_for(lambda: "web      | ended" in stack.output, 30, "the end is noticed")
    wait_for(lambda: stack.get("/healthz")[0] == 200, 60, "the page is back")


def test_killing_postgres_loses_no_acknowledged_row(stack: Stack) -> None:
    url = stack.state()["database_url"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE acknowledged (n integer PRIMARY KEY)")
    acknowledged: list[int] = []

    def write() -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                for n in range(1_000_000):
                    connection.execute("INSERT INTO acknowledged VALUES (%s)", [n])
                    acknowledged.append(n)
        except psycopg.Error:
            pass

    writer = threading.Thread(target=write)
    writer.start()
    wait_for(lambda: len(acknowledged) > 200, 30, "some rows")
    postmaster = stack.child("-D", f"{stack.state()['home']}/postgres")
    for process in [postmaster, *postmaster.children(recursive=True)]:
        process.kill()
    writer.join(30)
    assert not writer.is_alive()
    wait_for(lambda: "postgres | runs again" in stack.output, 60, "it is started again")
    with psycopg.connect(url) as connection:
        kept = {row[0] for row in connection.execute("SELECT n FROM acknowledged")}
    assert set(acknowledged) <= kept
    wait_for(stack.is_ready, 60, "ready again")
    wait_for(lambda: stack.get("/")[0] == 200, 60, "pages again")


def test_ctrl_c_stops_everything(stack: Stack) -> None:
    assert stack.interrupt() == 0
    assert "podium   | stopped" in stack.output
    assert not processes_of(stack.var)


def test_a_command_runs_while_podium_is_down(stack: Stack) -> None:
    command = "from django.contrib.auth.models import User; print(User.objects.get().username)"
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", command],
        cwd=ROOT,
        env=own_environment(stack.var),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "admin", done.stderr
    assert not processes_of(stack.var)


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_is_whole(stack: Stack) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux ends children with their parent")
    second = Stack(stack.var)
    try:
        second.wait_until_ready()
        assert "user admin created" not in second.output
        second.kill()
        wait_for(lambda: not processes_of(stack.var), 30, f"gone: {processes_of(stack.var)}")
        third = subprocess.run(
            [sys.executable, "manage.py", "migrate", "--check"],
            cwd=ROOT,
            env=own_environment(stack.var),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert third.returncode == 0, third.stderr
    finally:
        second.end()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "postgresql://nobody:x@127.0.0.1:1/none", "DATABASE_URL names"),
        ("REDIS_URL", "redis://127.0.0.1:1/0", "REDIS_URL names"),
    ],
)
def test_a_given_server_that_does_not_answer_is_named(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    refused = run_up(tmp_path / "var", free_port(), **{name: value})
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "does not answer" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not processes_of(tmp_path / "var")
    assert not read_state(tmp_path / "var"), "nothing was started before the check"


def test_a_data_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = run_up(tmp_path / "file" / "var", free_port())
    assert refused.returncode == 1
    assert "cannot write to" in refused.stderr
    assert "VAR_DIR" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_terminating_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "var")
    try:
        wait_for(lambda: "preparing" in stack.output, 60, "on its way")
        time.sleep(0.5)
        os.kill(stack.pid, signal.SIGTERM)
        wait_for(lambda: "stopped" in stack.output, 60, "stopped")
        wait_for(lambda: not processes_of(stack.var), 30, "all gone")
    finally:
        stack.end()
        shutil.rmtree(stack.state()["home"], ignore_errors=True)


def run_search(var: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "search", "hello", "--collection", "nowhere"],
        cwd=ROOT,
        env={**own_environment(var), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_command_on_an_empty_folder_makes_the_tables_itself(tmp_path: Path) -> None:
    done = run_search(tmp_path / "var")
    assert "There is no collection 'nowhere'" in done.stderr
    assert not processes_of(tmp_path / "var")
    remove_home(tmp_path / "var")


def test_a_given_database_without_tables_is_its_owners_to_prepare(tmp_path: Path) -> None:
    url = os.environ["DATABASE_URL"].rsplit("/", 1)[0] + "/postgres"
    done = run_search(tmp_path / "var", DATABASE_URL=url, REDIS_URL=os.environ["REDIS_URL"])
    assert "run manage.py prepare" in done.stderr
