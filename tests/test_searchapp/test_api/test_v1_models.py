"""/v1/models by the official client, with a real worker and without one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import zeroentropy
from django.conf import settings
from django.contrib.auth.models import User
from zeroentropy import AsyncZeroEntropy, ZeroEntropy

from searchapp.models import ApiUsage, Collection
from tests.callers import make_key
from tests.shelves import make_collection

from .event_loop import run_async
from .workers import running_worker

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

DOCUMENTS = ["The history of the violin.", "Water the tomato plants each morning.", "Boats."]
QUERY = "when to water tomatoes"


@pytest.mark.process
def test_models_by_the_official_client(
    olive: User,
    client_of: Callable[..., ZeroEntropy],
    async_client_of: Callable[..., AsyncZeroEntropy],
    tmp_path: Path,
) -> None:
    garden = make_collection("garden", user=olive, is_public=False)
    garden.active_config.instruction = "Prefer tomatoes."
    garden.active_config.save()
    client, again = client_of(olive), async_client_of(olive)
    with running_worker(tmp_path / "worker.log", "gpu,embed"):
        ranked = client.models.rerank(model="zerank-2", query=QUERY, documents=DOCUMENTS)
        assert ranked.results[0].index == 1
        scores = [each.relevance_score for each in ranked.results]
        assert sorted(scores, reverse=True) == scores and all(0 <= each <= 1 for each in scores)
        assert len(scores) == 3 and ranked.actual_latency_mode == "fast"
        assert 0 < ranked.inference_latency <= ranked.e2e_latency
        expected = sum(150 + len(QUERY.encode()) + len(each.encode()) for each in DOCUMENTS)
        assert ranked.total_bytes == expected and ranked.total_tokens > 0

        slow = client.models.rerank(
            model="default", query=QUERY, documents=DOCUMENTS, top_n=2, latency="slow"
        )
        assert slow.actual_latency_mode == "slow" and len(slow.results) == 2
        of_collection, packed = run_async(by_async_client(again))
        assert of_collection.results[0].index == 1
        assert client.models.rerank(model="default", query="", documents=[]).results == []
        with pytest.raises(zeroentropy.NotFoundError):
            client.models.rerank(model="podium/elsewhere", query=QUERY, documents=DOCUMENTS)

        made = client.models.embed(model="default", input=DOCUMENTS, input_type="document")
        assert len(made.results) == 3 and made.usage.total_tokens > 0
        rows = np.array([each.embedding for each in made.results])
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
        first = np.frombuffer(base64.b64decode(str(packed.results[0].embedding)), "<f4")
        assert np.allclose(first, rows[0], atol=1e-3)
        with pytest.raises(zeroentropy.BadRequestError, match="length"):
            client.models.embed(model="default", input="x", input_type="query", dimensions=40)
    usage = ApiUsage.objects.filter(family="rerank").totals()
    assert usage["calls"] == 5 and usage["pairs"] == 9 and usage["tokens"] > 0


async def by_async_client(client: AsyncZeroEntropy) -> tuple[Any, Any]:
    ranked = await client.models.rerank(model="podium/garden", query=QUERY, documents=DOCUMENTS)
    made = await client.models.embed(
        model="default",
        input=DOCUMENTS[0],
        input_type="document",
        encoding_format="base64",
        dimensions=384,
        latency="slow",
    )
    return ranked, made


def test_without_a_worker_the_call_says_so_and_may_be_tried_again(
    olive: User, client_of: Callable[..., ZeroEntropy]
) -> None:
    with pytest.raises(zeroentropy.InternalServerError) as failure:
        client_of(olive).models.rerank(model="default", query="q", documents=["d"])
    assert failure.value.status_code == 503
    assert failure.value.response.headers["retry-after"] == "1"
    assert failure.value.response.json() == {"detail": "No rerank worker is running."}
    with pytest.raises(zeroentropy.InternalServerError):
        client_of(olive, name="second").models.embed(model="default", input="x", input_type="query")


def test_unknown_models_are_not_found(olive: User, client_of: Callable[..., ZeroEntropy]) -> None:
    client = client_of(olive)
    for model in ("zerank-9", "", "podium/", "podium/none", "someone/huge-model"):
        with pytest.raises(zeroentropy.NotFoundError):
            client.models.rerank(model=model, query="q", documents=["d"])
    for model in ("zembed-1", ""):
        with pytest.raises(zeroentropy.NotFoundError):
            client.models.embed(model=model, input="x", input_type="query")


def test_a_used_up_limit_is_429_and_the_client_waits_and_tries_again(
    olive: User, client_of: Callable[..., ZeroEntropy], settings: Any
) -> None:
    settings.API_FAST_PAIRS_PER_MINUTE = settings.API_SLOW_PAIRS_PER_MINUTE = 60
    client = client_of(olive, max_retries=0)
    texts = ["d"] * 59
    with pytest.raises(zeroentropy.InternalServerError):  # let through, but nobody works
        client.models.rerank(model="default", query="q", documents=texts, latency="fast")
    with pytest.raises(zeroentropy.RateLimitError) as failure:
        client.models.rerank(model="default", query="q", documents=texts[:3], latency="fast")
    waited = float(failure.value.response.headers["retry-after-ms"])
    assert 0 < waited <= 3000
    # The slow bucket is another one.
    with pytest.raises(zeroentropy.InternalServerError):
        client.models.rerank(model="default", query="q", documents=texts[:3], latency="slow")
    patient = client.with_options(max_retries=1)
    with pytest.raises(zeroentropy.InternalServerError):  # 429 first, then let through
        patient.models.rerank(model="default", query="q", documents=texts[:3], latency="fast")


BAD_BODIES: list[tuple[bytes, int]] = [
    (b"", 422),
    (b"{", 422),
    (b"[]", 422),
    (b"null", 422),
    (b"\xff\xfe", 422),
    (b"[" * 100_000, 422),
    (b'{"model":"default","query":"q"}', 422),
    (b'{"model":"default","query":"q","documents":"d"}', 422),
    (b'{"model":"default","query":"q","documents":[1]}', 422),
    (b'{"model":"default","query":"q","documents":[{"text":"d"}]}', 422),
    (b'{"model":"default","query":"q","documents":["d"],"latency":"soon"}', 422),
    (b'{"model":"default","query":"\\ud800","documents":["d"]}', 422),
    (b'{"model":"default","query":"q","documents":["d"],"top_n":"x"}', 422),
    (b'{"model":"default","query":"q","documents":["d"],"top_n":0}', 400),
    (b'{"model":"default","query":"q","documents":["' + b"d" * 5_000_000 + b'"]}', 400),
    (b" " * 10_000_001, 413),
]


@pytest.mark.parametrize(("body", "status"), BAD_BODIES, ids=lambda v: str(v)[:40])
def test_bad_bodies_are_told_in_the_contracts_shape(
    live_server: Any, olive: User, body: bytes, status: int
) -> None:
    answer = httpx.post(
        f"{live_server.url}/v1/models/rerank",
        content=body,
        headers={"Authorization": f"Bearer {make_key(olive)[1]}"},
    )
    assert answer.status_code == status
    detail = answer.json()["detail"]
    if status == 422:
        assert set(detail[0]) == {"loc", "msg", "type"} and detail[0]["loc"][0] == "body"
    else:
        assert isinstance(detail, str)


def test_what_is_no_endpoint_and_who_has_no_key(live_server: Any, olive: User) -> None:
    base = f"{live_server.url}/v1"
    assert httpx.post(f"{base}/models/rank").json() == {"detail": "Not Found"}
    wrong = httpx.get(f"{base}/models/rerank")
    assert wrong.status_code == 405 and wrong.json() == {"detail": "Method Not Allowed"}
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}):
        answer = httpx.post(f"{base}/models/rerank", json={}, headers=headers)
        assert answer.status_code == 401 and isinstance(answer.json()["detail"], str)
    plain = make_key(olive, "ingest")[1]
    answer = httpx.post(
        f"{base}/models/rerank", json={}, headers={"Authorization": f"Bearer {plain}"}
    )
    assert answer.status_code == 403
    assert Collection.objects.count() == 0


def test_a_program_is_told_that_the_server_does_not_know_its_own_name(
    live_server: Any, olive: User
) -> None:
    """Which is what the first call behind a new name meets."""
    told = {"Authorization": f"Bearer {make_key(olive)[1]}", "Host": "search.example.org"}
    for path in ("v1/models/rerank", "cohere/v2/rerank", "api/v1/collections", "mcp"):
        answer = httpx.post(f"{live_server.url}/{path}", json={}, headers=told)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
        said = answer.json()
        assert "search.example.org" in said["detail"] and "ALLOWED_HOSTS" in said["detail"]
        assert said["detail"] == said["message"] == said["error"]["message"]
    page = httpx.get(f"{live_server.url}/collections/", headers={"Host": "<b>.example"})
    assert page.status_code == 400 and "“&lt;b&gt;.example”" in page.text
