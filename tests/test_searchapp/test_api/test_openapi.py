"""The OpenAPI documents say what the server does: requests made from them, right and wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from django.conf import settings
from django.contrib.auth.models import User
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from searchapp.engine import broker
from searchapp.models import SearchConfig, TrainingJob, TrainingState
from searchapp.search import pipeline, traces
from tests.callers import bearer, make_key
from tests.shelves import add_document, make_collection

from .workers import running_worker

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

EXAMPLES = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
Aim = Callable[[Case], None]


@pytest.fixture
def plain(transactional_db: None, settings: Any, tmp_path: Any) -> str:
    settings.MEDIA_ROOT = tmp_path / "media"
    broker.connection().flushdb()
    return make_key(User.objects.create_user("olive"))[1]


@pytest.fixture
def ids(plain: str) -> dict[str, str]:
    """What stands in addresses, so that calls reach something."""
    olive = User.objects.get(username="olive")
    birds = make_collection("birds", user=olive)
    heron = add_document(birds, "Heron", ["A heron in the reeds.", "Herons eat fish."])
    trace = traces.record(pipeline.start("heron", birds, user=olive), olive)
    config = pipeline.active_config(birds)
    job = TrainingJob.objects.create(collection=birds, config=config, state=TrainingState.DONE)
    SearchConfig.objects.create(collection=birds, version=2)
    return {"documents": str(heron.uid), "searches": str(trace.uid), "trainings": str(job.uid)}


def test_our_own_api_does_what_its_document_says(
    live_server: Any, plain: str, ids: dict[str, str]
) -> None:
    def aim(case: Case) -> None:
        parts = case.path_parameters or {}
        if case.method != "DELETE" or "uid" in parts or "draft" in case.path:
            parts["slug"] = "birds"
        if case.method == "GET" and "uid" in parts:
            parts["uid"] = next(uid for kind, uid in ids.items() if kind in case.path)
        if isinstance(parts.get("version"), int):
            parts["version"] = 1 + parts["version"] % 4

    failures = called(f"{live_server.url}/api/openapi.json", "/api/v1", plain, aim, len(ids) * 10)
    assert not failures, "\n\n".join(failures)


def test_v1_does_what_its_document_says(live_server: Any, plain: str, ids: dict[str, str]) -> None:
    def aim(case: Case) -> None:
        body = case.body
        named = isinstance(body, dict) and isinstance(body.get("collection_name"), str)
        if named and "delete-collection" not in case.path:
            body["collection_name"] = "birds"

    failures = called(f"{live_server.url}/v1/openapi.json", "/v1", plain, aim, 15)
    assert not failures, "\n\n".join(failures)


def test_the_dialects_do_what_their_document_says(
    live_server: Any, plain: str, tmp_path: Path
) -> None:
    # Without a worker every one of them would only say that there is none.
    with running_worker(tmp_path / "worker.log", RERANK_MODEL="untrained"):
        failures = called(f"{live_server.url}/api/dialects.json", "", plain, lambda case: None, 12)
    assert not failures, "\n\n".join(failures)


def called(address: str, base: str, plain: str, aim: Aim, at_least: int) -> list[str]:
    """Calls every operation with requests that fit the document and with others that do not; the
    first failure of each."""
    schema = schemathesis.openapi.from_dict(requests.get(address, timeout=30).json())
    url = address.partition("/v1/")[0].partition("/api/")[0] + base
    failures, count = [], 0
    session = requests.Session()
    for found in schema.get_all_operations():
        operation = found.ok()
        count += 1
        for mode in GenerationMode:
            if failure := _first_failure(operation, mode, url, session, plain, aim):
                failures.append(failure)
    assert count >= at_least
    return failures


def _first_failure(
    operation: Any,
    mode: GenerationMode,
    url: str,
    session: requests.Session,
    plain: str,
    aim: Aim,
) -> str:
    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def try_it(case: Case) -> None:
        aim(case)
        answer = case.call(
            base_url=url, session=session, headers=bearer(plain)["headers"], timeout=30
        )
        # A model that is served here may be guessed; where no worker runs that is a documented 503.
        has_none = answer.status_code == 503 and "worker is running" in answer.text
        checks = CHECKS[1:] if has_none else CHECKS
        case.validate_response(answer, checks=checks)

    try:
        try_it()
    except (Exception, FailureGroup) as error:
        return f"{operation.label} ({mode.value}): {error}"
    return ""


def test_the_documents_are_plain_json_with_every_reference_met(client: Any) -> None:
    for address in ("/api/openapi.json", "/v1/openapi.json", "/api/dialects.json"):
        text = client.get(address).content.decode()
        document = json.loads(text)
        schemas = document["components"]["schemas"]
        for piece in text.split('"$ref": "')[1:]:
            assert piece.partition('"')[0].rpartition("/")[2] in schemas
        for item in document["paths"].values():
            for operation in item.values():
                assert operation["summary"].endswith(".")
