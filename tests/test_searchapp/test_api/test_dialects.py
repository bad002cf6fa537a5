"""The rerank dialects by their official clients, where there are any, against a live server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import voyageai
import voyageai.error
from django.conf import settings
from django.contrib.auth.models import User

from searchapp.models import ApiUsage
from tests.callers import make_key
from tests.shelves import make_collection

from .event_loop import run_async
from .workers import running_worker

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

DOCUMENTS = ["The history of the violin.", "Water the tomato plants each morning.", "Boats."]
QUERY = "when to water tomatoes"
LONG = "tomato " * 4_000
# Address -> the least body that is complete.
ADDRESSES: dict[str, dict[str, Any]] = {
    "cohere/v1/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "cohere/v2/rerank": {"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS},
    "jina/v1/rerank": {"model": "jina-reranker-v3", "query": QUERY, "documents": DOCUMENTS},
    "voyage/v1/rerank": {"model": "rerank-2.5", "query": QUERY, "documents": DOCUMENTS},
    "tei/rerank": {"query": QUERY, "texts": DOCUMENTS},
    "vllm/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "vllm/v1/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "vllm/v2/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "infinity/rerank": {"query": QUERY, "documents": DOCUMENTS},
}
Ask = Callable[..., Any]


@pytest.fixture
def base(live_server: Any, clean_broker: None) -> str:
    return str(live_server.url)


@pytest.fixture
def plain(olive: User) -> str:
    return make_key(olive)[1]


@pytest.fixture
def ask(base: str, plain: str) -> Ask:
    """`ask(address, **body)` -> (status, JSON)."""

    def call(address: str, method: str = "POST", key: str = plain, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = httpx.request(method, f"{base}/{address}", json=body, headers=headers, timeout=60)
        return answer.status_code, answer.json() if answer.content else None

    return call


@pytest.mark.process
def test_every_dialect_ranks(base: str, plain: str, olive: User, ask: Ask, tmp_path: Path) -> None:
    garden = make_collection("garden", user=olive, is_public=False)
    garden.active_config.instruction = "Prefer tomatoes."
    garden.active_config.save()
    with running_worker(tmp_path / "worker.log", "gpu,embed"):
        openai_embeds(base, plain)
        run_async(openai_embeds_async(base, plain))
        cohere_ranks(base, plain)
        run_async(cohere_ranks_async(base, plain))
        voyage_ranks(base, plain)
        run_async(voyage_ranks_async(base, plain))
        jina_ranks(ask)
        tei_ranks(ask)
        vllm_ranks(ask)
        infinity_ranks(ask)
        # A profile, an instruction of the caller's own, and what is cut.
        for address, body in ADDRESSES.items():
            status, answer = ask(address, **{**body, "instruction": "Prefer boats."})
            assert status == 200, (address, answer)
            if address != "tei/rerank":
                status, answer = ask(address, **{**body, "model": "podium/garden"})
                assert status == 200, (address, answer)
                assert ask(address, **{**body, "model": "podium/elsewhere"})[0] == 404
    totals = ApiUsage.objects.filter(family="rerank").totals()
    assert totals["calls"] > 30
    assert totals["tokens"] > 0


def openai_embeds(base: str, plain: str) -> None:
    client = openai.OpenAI(api_key=plain, base_url=f"{base}/v1", max_retries=0)
    # The client asks for base64 and unpacks it by itself.
    made = client.embeddings.create(model="text-embedding-3-small", input=DOCUMENTS)
    assert [each.index for each in made.data] == [0, 1, 2]
    assert made.usage.total_tokens > 0
    vectors = np.array([each.embedding for each in made.data])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    [one] = client.embeddings.create(
        model="default", input=DOCUMENTS[0], encoding_format="float",
        dimensions=vectors.shape[1], extra_body={"input_type": "document"},
    ).data  # fmt: skip
    assert np.allclose(one.embedding, vectors[0], atol=1e-3)
    with pytest.raises(openai.NotFoundError) as failure:
        client.embeddings.create(model="other", input="x")
    assert failure.value.code == "model_not_found"
    for wrong in ({"input": []}, {"input": [1, 2]}, {"input": "x", "dimensions": 7}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**{"model": "default", **wrong})
    with pytest.raises(openai.BadRequestError, match="input: Send texts: token numbers are"):
        client.embeddings.create(model="default", input=[[1, 2]])


async def openai_embeds_async(base: str, plain: str) -> None:
    client = openai.AsyncOpenAI(api_key=plain, base_url=f"{base}/v1", max_retries=0)
    made = await client.embeddings.create(model="default", input=["x", "y"])
    assert len(made.data) == 2


def cohere_ranks(base: str, plain: str) -> None:
    client = cohere.ClientV2(api_key=plain, base_url=f"{base}/cohere")
    found = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    scores = [each.relevance_score for each in found.results]
    assert found.results[0].index == 1
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert found.id
    assert found.meta.api_version.version == "2"
    assert found.meta.billed_units.search_units == 1
    assert found.meta.tokens.input_tokens > 0
    assert found.meta.warnings is None
    few = client.rerank(
        model="rerank-v3.5", query=QUERY, documents=[*DOCUMENTS, LONG], top_n=2,
        max_tokens_per_doc=100, priority=5,
    )  # fmt: skip
    assert len(few.results) == 2
    assert any("cut" in each for each in few.meta.warnings)
    assert any("max_tokens_per_doc" in each for each in few.meta.warnings)
    old = cohere.Client(api_key=plain, base_url=f"{base}/cohere")
    rows = [{"title": "Violin", "text": DOCUMENTS[0]}, {"title": "Tomato", "text": DOCUMENTS[1]}]
    ranked = old.rerank(
        query=QUERY, documents=rows, rank_fields=["title", "text"], return_documents=True
    )
    assert ranked.results[0].index == 1
    assert ranked.results[0].document.text == DOCUMENTS[1]
    assert ranked.meta.api_version.version == "1"
    assert ranked.meta.warnings is None
    bare = old.rerank(query=QUERY, documents=[{"snippet": DOCUMENTS[0]}, *rows])
    assert bare.meta.warnings[0].startswith("Documents without text, ranked as empty ones: 1.")
    without = old.rerank(model="rerank-english-v3.0", query=QUERY, documents=DOCUMENTS)
    assert without.results[0].document is None
    with pytest.raises(cohere.NotFoundError) as failure:
        client.rerank(model="command-r", query=QUERY, documents=DOCUMENTS)
    assert "There is no model" in failure.value.body["message"]
    with pytest.raises(cohere.BadRequestError):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=[])


async def cohere_ranks_async(base: str, plain: str) -> None:
    client = cohere.AsyncClientV2(api_key=plain, base_url=f"{base}/cohere")
    found = await client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    assert found.results[0].index == 1


def voyage_ranks(base: str, plain: str) -> None:
    client = voyageai.Client(api_key=plain, base_url=f"{base}/voyage/v1", max_retries=1)
    # A query of its own: scores that are known from before cost no tokens.
    found = client.rerank(f"{QUERY}?", DOCUMENTS, model="rerank-2.5", top_k=2)
    assert len(found.results) == 2
    assert found.results[0].document == DOCUMENTS[1]
    assert found.results[0].relevance_score >= found.results[1].relevance_score
    assert found.total_tokens > 0
    with pytest.raises(voyageai.error.InvalidRequestError, match="truncation"):
        client.rerank(QUERY, [LONG], model="rerank-2.5", truncation=False)


async def voyage_ranks_async(base: str, plain: str) -> None:
    client = voyageai.AsyncClient(api_key=plain, base_url=f"{base}/voyage/v1", max_retries=1)
    found = await client.rerank(QUERY, DOCUMENTS, model="rerank-2.5")
    assert found.results[0].index == 1


def jina_ranks(ask: Ask) -> None:
    mixed = [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]]
    status, found = ask("jina/v1/rerank", model="jina-reranker-v3", query=QUERY, documents=mixed)
    assert status == 200
    assert found["results"][0]["index"] == 1
    assert found["results"][0]["document"] == {"text": DOCUMENTS[1]}
    assert found["object"] == "list"
    assert found["usage"].keys() == {"total_tokens", "prompt_tokens"}
    body = {**ADDRESSES["jina/v1/rerank"], "return_documents": False, "top_n": 1}
    [only] = ask("jina/v1/rerank", **body)[1]["results"]
    assert set(only) == {"index", "relevance_score"}


def tei_ranks(ask: Ask) -> None:
    status, found = ask("tei/rerank", query=QUERY, texts=DOCUMENTS, return_text=True)
    assert status == 200
    assert found[0]["index"] == 1
    assert found[0]["text"] == DOCUMENTS[1]
    assert all(0 <= each["score"] <= 1 for each in found)
    raw = ask("tei/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True)[1]
    assert [each["index"] for each in raw] == [each["index"] for each in found]
    assert set(raw[0]) == {"index", "score"}
    status, refused = ask("tei/rerank", query=QUERY, texts=[LONG])
    assert status == 413
    assert refused["error_type"] == "validation"
    assert ask("tei/rerank", query=QUERY, texts=[LONG], truncate=True)[0] == 200
    assert ask("tei/health", "GET", key="")[0] == 200
    assert ask("tei/info", "GET")[1]["model_id"]


def vllm_ranks(ask: Ask) -> None:
    status, found = ask("vllm/v2/rerank", query=QUERY, documents=DOCUMENTS, top_n=0)
    assert status == 200
    assert len(found["results"]) == 3
    assert found["results"][0]["document"] == {"text": DOCUMENTS[1]}
    assert found["id"].startswith("rerank-")
    assert ask("vllm/rerank", query=QUERY, documents="Boats.", priority=1)[0] == 200
    raw = ask("vllm/rerank", query=QUERY, documents=DOCUMENTS, use_activation=False)[1]
    assert [each["index"] for each in raw["results"]] == [
        each["index"] for each in found["results"]
    ]


def infinity_ranks(ask: Ask) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "return_documents": True, "raw_scores": True}
    status, found = ask("infinity/rerank", **body)
    assert status == 200
    assert found["object"] == "rerank"
    assert found["results"][0]["document"] == DOCUMENTS[1]
    assert isinstance(found["created"], int)


# --- what goes wrong, in the shape of each -----------------------------------------------------


def told(address: str, body: Any) -> str:
    """The sentence, from where the dialect has it; anything else fails."""
    name = address.split("/")[0]
    if name == "cohere":
        assert set(body) == {"message"}
        return str(body["message"])
    if name in {"jina", "voyage"}:
        assert set(body) == {"detail"}
        detail = body["detail"]
        return detail if isinstance(detail, str) else json.dumps(detail)
    if name == "tei":
        assert set(body) == {"error", "error_type"}
        return str(body["error"])
    if "error" not in body:  # a schema error of Infinity
        return json.dumps(body["detail"])
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


@pytest.mark.parametrize("address", ADDRESSES)
def test_refusals_have_the_shape_of_the_dialect(
    ask: Ask, olive: User, address: str, settings: Any
) -> None:
    body = ADDRESSES[address]
    texts = "texts" if "texts" in body else "documents"
    status, answer = ask(address, key="", **body)
    assert status == 401
    assert "Authorization" in told(address, answer)
    status, answer = ask(address, key=make_key(olive, "ingest")[1], **body)
    assert status == 403
    assert "scope" in told(address, answer)
    status, answer = ask(address, **{**body, texts: []})
    assert status == 400
    assert "at least one" in told(address, answer)
    if address.startswith("tei"):
        assert answer["error_type"] == "empty"
    status, answer = ask(address, "GET")
    assert status == 405
    assert told(address, answer)
    status, answer = ask(f"{address}/more", **body)
    assert status == 404
    assert told(address, answer)
    # Nobody works: an error of the server, which clients may try again.
    status, answer = ask(address, **body)
    assert status == (424 if address.startswith("tei") else 503)
    assert told(address, answer) == "No rerank worker is running."
    settings.API_FAST_PAIRS_PER_MINUTE = settings.API_SLOW_PAIRS_PER_MINUTE = 8
    key = make_key(olive)[1]
    statuses = [ask(address, key=key, **body)[0] for _ in range(6)]
    assert 429 in statuses, statuses
    settings.API_MAX_REQUEST_BYTES = 100
    status, answer = ask(address, **body)
    assert status == (413 if address.startswith("tei") else 400)
    assert "bytes" in told(address, answer)


WRONG: list[bytes] = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'"x"', b"1e999",
    b'{"query":1,"documents":["d"],"texts":["d"],"model":"default"}',
    b'{"query":"q","documents":[null],"texts":[null],"model":"default"}',
    b'{"query":"q","documents":[[["d"]]],"texts":[[["d"]]],"model":"default"}',
    b'{"query":"q","documents":[1],"texts":[1],"model":"default"}',
    b'{"query":"\\ud800","documents":["d"],"texts":["d"],"model":"default"}',
    b'{"query":"q","documents":["d"],"texts":["d"],"model":"x\\u0000y\\r\\nset-cookie: a"}',
    b'{"query":"q","documents":["d"],"texts":["d"],"model":"podium/../x"}',
    b'{"query":"q","documents":["d"],"texts":["d"],"model":"default","top_n":-1,"top_k":-1}',
    b'{"query":"q","documents":["d"],"texts":["d"],"model":"default","top_n":1e30,"top_k":1e30}',
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_wrong_bodies_are_told_in_the_shape_of_the_dialect(
    base: str, plain: str, address: str
) -> None:
    headers = {"Authorization": f"Bearer {plain}"}
    with httpx.Client(headers=headers, timeout=60) as client:
        for body in WRONG:
            answer = client.post(f"{base}/{address}", content=body)
            # TEI has no model and no top_n: what is left of some of these it would rank.
            unserved = address == "tei/rerank" and answer.status_code == 424
            assert unserved or 400 <= answer.status_code < 423, (body[:60], answer.status_code)
            assert told(address, answer.json()), body[:60]
        if address in {"cohere/v2/rerank", "tei/rerank"}:
            answer = client.post(f"{base}/{address}", content=b" " * 10_000_001)
            assert answer.status_code == 413
            assert "10,000,000 bytes" in told(address, answer.json())


def test_official_clients_name_the_error(base: str, plain: str, olive: User) -> None:
    client = cohere.ClientV2(api_key="podium_wrong", base_url=f"{base}/cohere")
    with pytest.raises(cohere.UnauthorizedError):
        client.rerank(model="rerank-v3.5", query="q", documents=["d"])
    reader = make_key(olive, "ingest")[1]
    with pytest.raises(cohere.ForbiddenError):
        cohere.ClientV2(api_key=reader, base_url=f"{base}/cohere").rerank(
            model="rerank-v3.5", query="q", documents=["d"]
        )
    options = {"max_retries": 0}
    with pytest.raises(cohere.ServiceUnavailableError):
        cohere.ClientV2(api_key=plain, base_url=f"{base}/cohere").rerank(
            model="rerank-v3.5", query="q", documents=["d"], request_options=options
        )
    with pytest.raises(openai.AuthenticationError) as failure:
        openai.OpenAI(api_key="wrong", base_url=f"{base}/v1").embeddings.create(
            model="default", input="x"
        )
    assert failure.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError):
        openai.OpenAI(api_key=reader, base_url=f"{base}/v1").embeddings.create(
            model="default", input="x"
        )
    with pytest.raises(openai.InternalServerError):
        openai.OpenAI(api_key=plain, base_url=f"{base}/v1", max_retries=0).embeddings.create(
            model="default", input="x"
        )
    with pytest.raises(voyageai.error.AuthenticationError):
        voyageai.Client(api_key="wrong", base_url=f"{base}/voyage/v1", max_retries=1).rerank(
            "q", ["d"], model="rerank-2.5"
        )
    with pytest.raises(voyageai.error.ServiceUnavailableError):
        voyageai.Client(api_key=plain, base_url=f"{base}/voyage/v1", max_retries=1).rerank(
            "q", ["d"], model="rerank-2.5"
        )


def test_a_client_that_waits_as_told_is_served(base: str, plain: str, settings: Any) -> None:
    """429 first, with the seconds to wait, which the official client waits; then let through."""
    settings.API_FAST_PAIRS_PER_MINUTE = settings.API_SLOW_PAIRS_PER_MINUTE = 60
    client = cohere.ClientV2(api_key=plain, base_url=f"{base}/cohere")

    def ask(documents: int, retries: int) -> type[Exception]:
        with pytest.raises(cohere.core.ApiError) as failure:
            client.rerank(
                model="rerank-v3.5", query="q", documents=["d"] * documents,
                request_options={"max_retries": retries},
            )  # fmt: skip
        return type(failure.value)

    assert ask(60, 0) is cohere.ServiceUnavailableError  # of the fast bucket; nobody works
    assert ask(59, 0) is cohere.ServiceUnavailableError  # of the slow one
    assert ask(2, 0) is cohere.TooManyRequestsError
    assert ask(2, 1) is cohere.ServiceUnavailableError


def test_health_without_a_worker(ask: Ask) -> None:
    status, answer = ask("tei/health", "GET", key="")
    assert status == 503
    assert answer["error_type"] == "unhealthy"
    assert ask("tei/info", "GET", key="")[0] == 401
