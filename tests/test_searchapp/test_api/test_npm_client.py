"""The official client for Node. `make npm-sdk` fetches it; without it there is nothing to test."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from tests.callers import make_key
from tests.test_searchapp.ingest_files import pdf_bytes

from .workers import running_worker

SCRIPT = Path(__file__).with_name("npm_client.cjs")
MODULES = Path(__file__).resolve().parents[3] / ".npm-sdk" / "node_modules"

pytestmark = [
    pytest.mark.process,
    pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS),
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on this machine"),
    pytest.mark.skipif(
        not (MODULES / "zeroentropy").is_dir(), reason="make npm-sdk has not fetched the client"
    ),
]


def test_every_method_of_the_client_for_node(
    live_server: Any, clean_broker: None, olive: User, media: Path, tmp_path: Path, settings: Any
) -> None:
    # Of the story's reranks, one is to be told to wait.
    settings.API_SLOW_PAIRS_PER_MINUTE = 60
    pdf = base64.b64encode(pdf_bytes(["A heron fishes.", "An owl hunts."])).decode()
    with running_worker(tmp_path / "worker.log", MEDIA_ROOT=str(media), RERANK_MODEL="untrained"):
        done = subprocess.run(
            ["node", str(SCRIPT), f"{live_server.url}/v1", make_key(olive)[1], pdf],
            env={**os.environ, "NODE_PATH": str(MODULES)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 15
