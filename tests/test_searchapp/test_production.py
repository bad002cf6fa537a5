"""The settings of production, each in a process of its own because settings load once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client

ROOT = Path(__file__).resolve().parents[2]


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Set for the browser tests of this session; no deployment has it.
    inherited = {k: v for k, v in os.environ.items() if k != "DJANGO_ALLOW_ASYNC_UNSAFE"}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_deployment_check_is_clean_behind_https() -> None:
    done = manage(
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        HTTPS="yes",
        SECRET_KEY="a-key-of-fifty-characters-and-more-0123456789-abcdefghijklmn",
        ALLOWED_HOSTS="search.example.org",
    )
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout + done.stderr


def test_pages_name_their_static_files_by_content_and_whitenoise_serves_them(
    tmp_path: Path,
) -> None:
    environment = {"VAR_DIR": str(tmp_path), "DEBUG": "no", "SECRET_KEY": "x" * 60}
    collected = manage("collectstatic", "--noinput", "-v", "0", **environment)
    assert collected.returncode == 0, collected.stderr
    code = (
        "from django.test import Client; from django.templatetags.static import static;"
        "address = static('css/layout.css'); answer = Client().get(address);"
        "print(address, answer.status_code, answer['Cache-Control'])"
    )
    shown = manage("shell", "-v", "0", "-c", code, **environment)
    address, status, caching = shown.stdout.strip().split(" ", 2)
    assert address != "/static/css/layout.css"
    assert status == "200", shown.stdout
    assert "immutable" in caching


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_UPLOAD_MB", "many"), ("HTTPS", "perhaps"), ("DATABASE_URL", "mysql://localhost/x")],
)
def test_a_bad_value_stops_the_start_with_its_name(name: str, value: str) -> None:
    done = manage("check", **{name: value})
    assert done.returncode != 0
    assert name in done.stderr


def test_health_checks_are_not_sent_to_https(settings: object) -> None:
    settings.SECURE_SSL_REDIRECT = True  # type: ignore[attr-defined]
    client = Client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/collections/").status_code == 301


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_whose_reader_has_gone_ends_quietly(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "manage.py", "diffsettings"],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
