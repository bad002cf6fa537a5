"""The product served by rerankers over HTTP: an endpoint, a cascade, one that is down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from searchapp.engine import local, remote
from searchapp.models import Collection, Trace
from tests.fakes import FakeEmbedder
from tests.shelves import add_document, make_collection
from tests.test_rerank.http_servers import Asked, Server, ranked, serving

pytestmark = pytest.mark.django_db

SENTENCES = ["The heron waits.", "The heron wades slowly.", "Herons nest in trees by the water."]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Collection:
    cache.clear()
    reranker = local.reranker()
    monkeypatch.setattr(remote, "reranker", lambda: reranker)
    monkeypatch.setattr(remote, "embedder", FakeEmbedder)
    collection = make_collection()
    for number, sentence in enumerate(SENTENCES, 1):
        add_document(collection, f"Heron {number}", [sentence])
    return collection


@pytest.fixture
def endpoint() -> Iterator[Server]:
    def answer(asked: Asked, handler: Any) -> Any:
        return 200, ranked(asked.body["query"], asked.body["texts"], "score")

    with serving(answer) as server:
        yield server


def searched(client: Client, query: str) -> str:
    """The page of a search whose rerank is waited for, and of its trace."""
    page = client.get(reverse("search"), {"q": query, "collection": "library", "wait": "1"})
    trace = client.get(reverse("trace", args=[Trace.objects.latest("pk").uid]))
    return str(page.content.decode() + trace.content.decode())


def test_an_address_is_a_reranker(
    client: Client, library: Collection, endpoint: Server, settings: Any
) -> None:
    settings.RERANK_MODEL = endpoint.url.replace("http", "tei+http")
    html = searched(client, "heron wades slowly")
    assert "reranked by" in html and endpoint.url.removeprefix("http://") in html
    assert "the model’s published map of its logits" in html
    assert len(endpoint.bodies[0]["texts"]) == 3


def test_a_stage_that_is_down_is_told_and_the_search_reranked_all_the_same(
    client: Client, library: Collection, tmp_path: Path, settings: Any
) -> None:
    recipe = tmp_path / "cascade.toml"
    recipe.write_text(
        'kind = "cascade"\n[[stage]]\nmodel = "untrained"\nkeep = 2\n'
        '[[stage]]\nmodel = "tei.toml"\n'
    )
    (tmp_path / "tei.toml").write_text(
        'kind = "endpoint"\ndialect = "tei"\nurl = "http://127.0.0.1:9"\nmax_retries = 0\n'
        'name = "strong"\n'
    )
    settings.RERANK_MODEL = str(recipe)
    # As a worker does before it takes searches, whose deadline would not wait for it.
    local.warm_up_reranker()
    html = searched(client, "heron wades slowly")
    assert "reranked by" in html, Trace.objects.get().result["rerank"]
    assert "strong failed, the order before it stands: The endpoint http://127.0.0.1:9" in html


def test_a_recipe_that_is_wrong_leaves_the_first_stage_order_and_says_why(
    client: Client, library: Collection, tmp_path: Path, settings: Any
) -> None:
    recipe = tmp_path / "wrong.toml"
    recipe.write_text('kind = "endpoint"\ndialect = "tei"\n')
    settings.RERANK_MODEL = str(recipe)
    html = searched(client, "heron wades slowly")
    assert "The recipe wrong.toml: the key url is missing." in html
    assert "Heron 2" in html and "reranked by" not in html
