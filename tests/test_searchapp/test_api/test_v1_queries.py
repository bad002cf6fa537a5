"""/v1/queries by the official client: with real workers, and by words alone without any."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import zeroentropy
from django.conf import settings
from django.contrib.auth.models import User
from zeroentropy import AsyncZeroEntropy, ZeroEntropy

from searchapp.ingest.embedding import embed_pending
from tests.callers import make_key
from tests.test_searchapp.ingest_files import pdf_bytes

from .event_loop import run_async
from .vectors import hashed
from .workers import running_worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

LONG = " ".join(f"Sentence {n} tells of marsh and reed." for n in range(400))


@pytest.fixture
def client(olive: User, media: Path, client_of: Callable[..., ZeroEntropy]) -> ZeroEntropy:
    client = client_of(olive)
    client.collections.add(collection_name="birds")
    return client


def add(client: ZeroEntropy, path: str, content: Any, **metadata: Any) -> None:
    if isinstance(content, str):
        content = {"type": "text", "text": content}
    client.documents.add(collection_name="birds", path=path, content=content, metadata=metadata)


def fill(client: ZeroEntropy) -> None:
    add(client, "heron", "The grey heron fishes in the pond.", place="pond", year="2024")
    add(client, "owl", "An owl hunts mice at night in the barn.", place="barn", year="2023")
    add(client, "long", LONG + " The heron stands still. " + LONG, place="marsh")
    add(client, "book", {"type": "text-pages", "pages": ["Of gulls.", "Of herons: a heron."]})


@pytest.mark.process
def test_added_read_indexed_found_and_reranked_by_real_workers(
    client: ZeroEntropy, async_client_of: Callable[..., AsyncZeroEntropy], olive: User, tmp_path
) -> None:
    again = async_client_of(olive)
    with running_worker(tmp_path / "worker.log", MEDIA_ROOT=str(settings.MEDIA_ROOT)):
        fill(client)
        data = base64.b64encode(pdf_bytes(["Boats on the sea.", "A heron by the sea."])).decode()
        add(client, "sea.pdf", {"type": "auto", "base64_data": data})
        wait_until(lambda: client.status.get_status().num_indexed_documents == 5, 240)
        query: Any = {"collection_name": "birds", "query": "heron pond fishing"}
        raw = client.queries.with_raw_response.top_documents(
            **query, k=3, reranker="default", include_metadata=True
        )
        assert raw.headers["x-podium-rerank"] == "ok", raw.headers.get("x-podium-rerank-reason")
        assert raw.headers["x-podium-model"]
        top = raw.parse().results
        assert top[0].path == "heron" and top[0].metadata == {"place": "pond", "year": "2024"}
        assert [each.score for each in top] == sorted((e.score for e in top), reverse=True)
        snippets = client.queries.top_snippets(**query, k=5, reranker="podium/birds")
        assert snippets.results[0].path == "heron"

        async def by_async() -> Any:
            return await asyncio.gather(
                again.queries.top_pages(
                    collection_name="birds", query="heron sea", k=2, include_content=True
                ),
                again.queries.top_documents(collection_name="birds", query="heron", k=1),
                again.queries.top_snippets(collection_name="birds", query="heron", k=1),
            )

        pages, _, _ = run_async(by_async())
        assert (pages.results[0].path, pages.results[0].page_index) == ("sea.pdf", 1)
        assert "heron" in pages.results[0].content
        assert httpx.get(pages.results[0].image_url).content[:2] == b"\xff\xd8"
        with pytest.raises(zeroentropy.NotFoundError):
            client.queries.top_documents(**query, k=3, reranker="zerank-9")


def test_documents_pages_and_snippets_by_words(client: ZeroEntropy) -> None:
    fill(client)
    query: Any = {"collection_name": "birds", "query": "heron"}
    documents = client.queries.top_documents(**query, k=10).results
    assert {each.path for each in documents} == {"heron", "long", "book"}
    assert all(each.metadata is None and 0 <= each.score <= 1 for each in documents)
    assert "heron" in httpx.get(documents[0].file_url).text
    assert len(client.queries.top_documents(**query, k=1).results) == 1

    pages = client.queries.top_pages(**query, k=10, include_metadata=True)
    assert [(each.path, each.page_index) for each in pages.results] == [("book", 1), ("book", 0)]
    assert pages.results[0].content is None and pages.document_results[0].path == "book"
    with_content = client.queries.top_pages(**query, k=10, include_content=True)
    assert with_content.results[0].content == "Of herons: a heron."

    for precise in (False, True):
        found = client.queries.top_snippets(**query, k=20, precise_responses=precise)
        paths = [each.path for each in found.results]
        assert set(paths) == {"heron", "long", "book"}
        assert {each.path for each in found.document_results} == set(paths)
        for each in found.results:
            whole = client.documents.get_info(
                collection_name="birds", path=each.path, include_content=True
            ).document.content
            assert whole[each.start_index : each.end_index] == each.content
            assert "heron" in each.content
        size = len(found.results[paths.index("long")].content)
        assert size <= 200 if precise else 1500 <= size <= 2100
        book = found.results[paths.index("book")]
        assert book.page_span == [0, 2]
        assert found.results[paths.index("heron")].page_span == [0, 1]


def test_snippets_of_one_document_never_overlap(client: ZeroEntropy) -> None:
    add(client, "long", LONG)
    for precise in (False, True):
        found = client.queries.top_snippets(
            collection_name="birds", query="reed 17", k=128, precise_responses=precise
        ).results
        spans = sorted((each.start_index, each.end_index) for each in found)
        assert len(spans) > 5
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_filters_choose_and_a_null_query_only_filters(client: ZeroEntropy) -> None:
    fill(client)
    embed_pending(hashed)
    query: Any = {"collection_name": "birds", "query": "heron owl", "k": 10}
    cases: list[tuple[Any, set[str]]] = [
        (None, {"heron", "owl", "long", "book"}),
        ({"place": {"$eq": "pond"}}, {"heron"}),
        ({"place": {"$ne": "pond"}}, {"owl", "long", "book"}),
        ({"$or": [{"year": {"$lt": "2024"}}, {"place": "marsh"}]}, {"owl", "long"}),
    ]
    for form, expected in cases:
        found = client.queries.top_documents(**query, filter=form).results
        assert {each.path for each in found} == expected
        only: Any = {"collection_name": "birds", "query": None, "k": 10}
        listed = client.queries.top_documents(**only, filter=form).results
        assert [each.path for each in listed] == sorted(expected)
        snippets = client.queries.top_snippets(**query, filter=form).results
        assert {each.path for each in snippets} == expected
    for bad in ({"place": {"$like": "x"}}, {"$not": {}}, {"list:a": {"$eq": "x"}}):
        with pytest.raises(zeroentropy.BadRequestError):
            client.queries.top_documents(**query, filter=bad)


def test_k_and_query_have_limits(client: ZeroEntropy) -> None:
    fill(client)
    calls = {
        client.queries.top_documents: 2048,
        client.queries.top_pages: 1024,
        client.queries.top_snippets: 128,
    }
    for call, most in calls.items():
        call(collection_name="birds", query="heron", k=most)
        call(collection_name="birds", query="heron " + "x" * 4090, k=1)
        for k in (0, -1, most + 1):
            with pytest.raises(zeroentropy.BadRequestError):
                call(collection_name="birds", query="heron", k=k)
        for query in ("", " ", "x" * 4097):
            with pytest.raises(zeroentropy.BadRequestError):
                call(collection_name="birds", query=query, k=1)
        with pytest.raises(zeroentropy.NotFoundError):
            call(collection_name="elsewhere", query="heron", k=1)
    client.queries.top_snippets(collection_name="birds", query="ä" * 4096, k=1)
    with pytest.raises(zeroentropy.BadRequestError, match=r"has 8,192 bytes of UTF-8; .* 4,096"):
        client.queries.top_pages(collection_name="birds", query="ä" * 4096, k=1)
    with pytest.raises(zeroentropy.BadRequestError, match=r"has 5,000 characters; .* 4,096"):
        client.queries.top_snippets(collection_name="birds", query="ä" * 5000, k=1)


def test_required_keys_are_required(live_server: Any, olive: User) -> None:
    headers = {"Authorization": f"Bearer {make_key(olive)[1]}"}
    for name in ("top-documents", "top-pages", "top-snippets"):
        answer = httpx.post(f"{live_server.url}/v1/queries/{name}", json={}, headers=headers)
        assert answer.status_code == 422
        assert {each["loc"][-1] for each in answer.json()["detail"]} == {
            "collection_name",
            "query",
            "k",
        }


def test_many_documents_are_found_behind_one_with_many_passages(client: ZeroEntropy) -> None:
    add(client, "all", " ".join(f"The heron {n} heron." for n in range(4000)))
    for n in range(40):
        filler = " ".join(f"word{m}" for m in range(60))
        add(client, f"doc {n}", f"{filler} heron {filler}")
    found = client.queries.top_documents(collection_name="birds", query="heron", k=41).results
    assert len(found) == 41


def test_without_the_rerankers_workers_the_first_stage_answers(client: ZeroEntropy) -> None:
    fill(client)
    raw = client.queries.with_raw_response.top_documents(
        collection_name="birds", query="heron", k=3, reranker="zerank-2"
    )
    assert raw.headers["x-podium-rerank"] == "unavailable"
    assert raw.headers["x-podium-rerank-reason"] == "no-worker"
    assert len(raw.parse().results) == 3
