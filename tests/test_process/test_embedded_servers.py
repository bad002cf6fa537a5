"""The launchers of the embedded servers in the situations that break such launchers."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from searchapp.embedded import postgres
from searchapp.embedded.postgres import PostgresServer, start_postgres
from searchapp.embedded.redis import start_redis
from searchapp.embedded.state import EmbeddedError, make_var_dir, read_state

from .stack import ROOT, own_environment, processes_of

pytestmark = pytest.mark.process


@pytest.fixture
def var(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("servers") / "var"
    make_var_dir(folder)
    yield folder
    for word in processes_of(folder):
        psutil.Process(int(word.split()[0])).kill()
    home = read_state(folder).get("home")
    if home:
        shutil.rmtree(home, ignore_errors=True)


def start(var: Path) -> PostgresServer:
    return start_postgres(var, dies_with_us=True, settings={"fsync": "off"})


def answers(url: str) -> bool:
    with psycopg.connect(url, connect_timeout=10) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def test_a_running_server_is_taken_over_and_a_taken_port_given_up(var: Path) -> None:
    first = start(var)
    again = start(var)
    assert (again.pid, again.url, again.started_here) == (first.pid, first.url, False)
    first.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.port))
        squatter.listen()
        moved = start(var)
    assert moved.port != first.port
    assert answers(moved.url)
    assert read_state(var)["database_url"] == moved.url
    assert stat.S_IMODE((var / "embedded.json").stat().st_mode) == 0o600
    moved.stop()
    assert start(var).port == moved.port


def test_a_zombie_counts_as_dead(var: Path) -> None:
    server = start(var)
    server.stop()
    zombie = subprocess.Popen(["true"])
    while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    try:
        (server.data / "postmaster.pid").write_text(
            f"{zombie.pid}\n{server.data}\n0\n{server.port}\n\n127.0.0.1\n0 0\nready   \n"
        )
        assert answers(start(var).url)
    finally:
        zombie.wait()


def test_a_killed_server_and_its_orphans_are_recovered(var: Path) -> None:
    server = start(var)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    psutil.Process(server.pid).kill()
    again = start(var)
    assert again.pid != server.pid
    with psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (42,)


def test_an_interrupted_initialisation_is_made_again(var: Path) -> None:
    server = start(var)
    server.stop()
    server.data.rename(server.data.with_name("postgres.new"))
    assert answers(start(var).url)


def test_redis_keeps_queued_work_over_a_kill(var: Path) -> None:
    import redis

    server = start_redis(var, dies_with_us=True)
    client = redis.Redis.from_url(server.url)
    client.lpush("queue", "work")
    time.sleep(1.2)  # the append-only file is synced every second
    psutil.Process(server.pid).kill()
    again = start_redis(var, dies_with_us=True)
    assert again.pid != server.pid
    assert redis.Redis.from_url(again.url).lrange("queue", 0, -1) == [b"work"]
    assert redis.Redis.from_url(again.url).config_get("maxmemory-policy") == {
        "maxmemory-policy": "noeviction"
    }


def test_an_unreadable_state_file_is_said(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    (var / "embedded.json").write_text("{}")
    (var / "embedded.json").chmod(0)
    with pytest.raises(EmbeddedError, match="belongs to another user"):
        read_state(var)


def test_behind_a_closed_folder_data_and_binaries_go_elsewhere_and_no_mode_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs the servers as another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    var = closed / "var"
    make_var_dir(var)
    binaries = postgres.find_binaries()
    package = binaries.parent
    shutil.copytree(binaries, closed / "site" / package.name / binaries.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, closed / "site" / libraries.name)
    monkeypatch.setattr(
        postgres, "find_binaries", lambda: closed / "site" / package.name / binaries.name
    )
    before = {path: path.stat().st_mode for path in [*var.parents, var]}
    try:
        server = start(var)
        assert answers(server.url)
        assert not server.data.is_relative_to(closed)
        assert not Path(psutil.Process(server.pid).exe()).is_relative_to(closed)
        assert psutil.Process(server.pid).username() != "root"
        assert {path: path.stat().st_mode for path in before} == before
        server.stop()
        assert start(var).data == server.data
    finally:
        for word in processes_of(read_state(var)["home"]):
            psutil.Process(int(word.split()[0])).kill()
        shutil.rmtree(read_state(var)["home"], ignore_errors=True)


def test_an_ordinary_user_starts_both_servers(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("the whole session runs as an ordinary user")
    account = pwd.getpwnam("nobody")
    python = _interpreter_for(account)
    if python is None:
        pytest.skip("no Python that the user nobody can run has our packages")
    folder = Path("/tmp") / f"podium-nobody-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, account.pw_uid, account.pw_gid)
    code = (
        "import json, os, psutil, psycopg;"
        "from searchapp.embedded.servers import start_servers; from pathlib import Path;"
        "s = start_servers(Path(os.environ['VAR_DIR']), dies_with_us=True);"
        "ok = psycopg.connect(s.postgres.url).execute('SELECT 1').fetchone();"
        "print(json.dumps([ok, psutil.Process(s.postgres.pid).username(), os.getuid()]));"
        "s.stop()"
    )
    try:
        done = subprocess.run(
            [python, "-c", code],
            cwd=ROOT,
            env=own_environment(folder / "var", PYTHONPATH=os.pathsep.join(sys.path[1:])),
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [[1], "nobody", account.pw_uid]
        assert not processes_of(folder / "var")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interpreter_for(account: pwd.struct_passwd) -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        check = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
        try:
            done = subprocess.run(
                [python, "-c", check + "; import searchapp.embedded, psycopg"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None
