"""Rerankers from TOML files and addresses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.cascade import CascadeReranker
from rerank.errors import BadRecipe, ModelNotFound, RerankError
from rerank.inference.loading import load_reranker
from rerank.recipes import (
    CascadeRecipe,
    EndpointRecipe,
    ListwiseRecipe,
    StageRecipe,
    build,
    is_recipe,
    read_recipe,
)
from rerank.remote.dialects import DIALECTS
from rerank.remote.endpoint import EndpointReranker
from rerank.remote.listwise import ListwiseReranker
from rerank.types import Reranker, RerankRequest

from .http_servers import Asked, ranked, serving

ENDPOINT = """
kind = "endpoint"
dialect = "cohere"
url = "https://rerank.example"
model = "some-model"
"""
LISTWISE = """
kind = "listwise"
url = "http://localhost:8000/v1"
model = "some-chat-model"
"""
CASCADE = """
kind = "cascade"
budget_ms = 800
[[stage]]
model = "untrained"
keep = 30
[[stage]]
model = "endpoint.toml"
keep = 10
[[stage]]
model = "sub/listwise.toml"
"""


def none_to_load(name: str) -> Reranker:
    raise AssertionError(f"{name} was loaded")


def write(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_an_endpoint_with_its_defaults(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, ENDPOINT)) == EndpointRecipe(
        dialect="cohere", url="https://rerank.example/v2/rerank", model="some-model"
    )


def test_an_endpoint_with_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
kind = "endpoint"
dialect = "infinity"
url = "https://rerank.example:8443/deep/rerank?version=2"
model = "some-model"
name = "mine"
key_env = "MY_KEY"
timeout_seconds = 5
connect_seconds = 0.5
read_seconds = 2.5
max_retries = 0
raw_scores = true
max_documents = 10
max_request_bytes = 100000
max_document_characters = 4000
parallel = 2
model_revision = "2026-11"
[extra]
user = "podium"
"""
    recipe = read_recipe(str(write(tmp_path, text)))
    assert isinstance(recipe, EndpointRecipe)
    assert recipe.url == "https://rerank.example:8443/deep/rerank?version=2"
    assert recipe.extra == {"user": "podium"} and recipe.read_seconds == 2.5
    monkeypatch.setenv("MY_KEY", "secret")
    model = build(recipe, none_to_load)
    assert isinstance(model, EndpointReranker)
    assert model.card.name == "mine" and model.card.device == "rerank.example:8443"
    assert model.card.revision and "secret" not in repr(model.card)


def test_a_listwise_model_with_its_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, LISTWISE))
    assert recipe == ListwiseRecipe("http://localhost:8000/v1/chat/completions", "some-chat-model")
    model = build(recipe, none_to_load)
    assert isinstance(model, ListwiseReranker)
    assert model.card.name == "some-chat-model" and model.card.follows_instructions


def test_a_cascade_of_a_name_and_of_recipes_beside_it(tmp_path: Path) -> None:
    write(tmp_path, ENDPOINT, "endpoint.toml")
    write(tmp_path, LISTWISE, "sub/listwise.toml")
    recipe = read_recipe(write(tmp_path, CASCADE))
    assert isinstance(recipe, CascadeRecipe) and recipe.budget_ms == 800
    assert recipe.stages[0] == StageRecipe("untrained", 30)
    assert [stage.keep for stage in recipe.stages] == [30, 10, 0]
    loaded: list[str] = []

    def load(name: str) -> Reranker:
        loaded.append(name)
        return build(read_recipe("tei+http://localhost:1"), none_to_load)

    assert isinstance(build(recipe, load), CascadeReranker)
    assert loaded == ["untrained"]


def test_a_stage_may_be_an_address(tmp_path: Path) -> None:
    text = CASCADE.replace("endpoint.toml", "tei+http://localhost:8080").replace(
        "sub/listwise.toml", "listwise+http://localhost:8000/v1#chat"
    )
    recipe = read_recipe(write(tmp_path, text))
    assert isinstance(recipe, CascadeRecipe)
    assert recipe.stages[1].model == EndpointRecipe("tei", "http://localhost:8080/rerank")
    assert isinstance(recipe.stages[2].model, ListwiseRecipe)


@pytest.mark.parametrize(
    ("address", "recipe"),
    [
        (
            "cohere+https://host/path#model",
            EndpointRecipe("cohere", "https://host/path", "model"),
        ),
        (
            "cohere+https://COHERE_API_KEY@api.cohere.com#rerank-v3.5",
            EndpointRecipe(
                "cohere",
                "https://api.cohere.com/v2/rerank",
                "rerank-v3.5",
                key_env="COHERE_API_KEY",
            ),
        ),
        ("tei+http://[::1]:8080", EndpointRecipe("tei", "http://[::1]:8080/rerank")),
        (
            "vllm+http://host:8000#org/model%20two",
            EndpointRecipe("vllm", "http://host:8000/v1/rerank", "org/model two"),
        ),
        (
            "jina+https://host/a@b/rerank?c=d#m",
            EndpointRecipe("jina", "https://host/a@b/rerank?c=d", "m"),
        ),
        (
            "listwise+https://LLM_KEY@host/v1/#chat",
            ListwiseRecipe("https://host/v1/chat/completions", "chat", key_env="LLM_KEY"),
        ),
        ("listwise+http://host#c", ListwiseRecipe("http://host/v1/chat/completions", "c")),
        (
            "listwise+http://host/v1/chat/completions#c",
            ListwiseRecipe("http://host/v1/chat/completions", "c"),
        ),
    ],
)
def test_addresses(address: str, recipe: Any) -> None:
    assert is_recipe(address)
    assert read_recipe(address) == recipe


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_bare_host_is_completed_by_the_dialect(dialect: str) -> None:
    recipe = read_recipe(f"{dialect}+http://host:81/#m")
    assert isinstance(recipe, EndpointRecipe)
    assert recipe.url == f"http://host:81{DIALECTS[dialect].path}"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("https://host#m", "must begin with what is spoken there"),
        ("ftp+https://host#m", "known are zeroentropy, cohere, jina, voyage, tei, vllm"),
        ("cohere+https://host", "the key model is missing; cohere wants its name"),
        ("cohere+ftp://host#m", "must be an http or https address"),
        ("cohere+https://#m", "must be an http or https address"),
        ("cohere+https://host:99999#m", "must be an http or https address"),
        ("cohere+https://a b#m", "must be an http or https address"),
        ("cohere+https://user:sk-1234@host#m", "the name of an environment variable"),
        ("cohere+https://sk-1234@host#m", "the name of an environment variable"),
        ("listwise+https://host/v1", "the key model is missing"),
    ],
)
def test_bad_addresses(address: str, sentence: str) -> None:
    with pytest.raises(BadRecipe, match=sentence) as failure:
        read_recipe(address)
    assert "sk-1234" not in str(failure.value)


BAD_FILES = {
    "": "has no kind: it must be one of endpoint, listwise, cascade",
    'kind = "endpiont"': "kind must be one of .*, not 'endpiont'",
    "kind = ": "is not TOML",
    ENDPOINT + 'ulr = "x"': "the key ulr is unknown; did you mean url",
    ENDPOINT + "xyzzy = 1": "the key xyzzy is unknown; known are",
    ENDPOINT
    + 'timeout_seconds = "5"': "timeout_seconds must be a number from 0.05 to 3600, not '5'",
    ENDPOINT + "timeout_seconds = nan": "timeout_seconds must be a number",
    ENDPOINT + "max_retries = true": "max_retries must be a whole number from 0 to 20, not True",
    ENDPOINT + "parallel = 0": "parallel must be a whole number from 1 to 64, not 0",
    ENDPOINT + "raw_scores = 1": "raw_scores must be true or false",
    ENDPOINT + "raw_scores = true": "raw_scores cannot be had from cohere",
    ENDPOINT + 'key_env = "sk-12345"': "key_env must be the name of an environment variable",
    ENDPOINT + 'extra = "x"': "extra must be a table",
    ENDPOINT + '[extra]\nquery = "x"': "extra cannot set query",
    ENDPOINT + "[extra]\ndate = 2026-11-21": "extra must be a table",
    ENDPOINT.replace("cohere", "cohre"): "dialect must be one of zeroentropy, .*, not 'cohre'",
    ENDPOINT.replace('dialect = "cohere"', "dialect = [1]"): "dialect must be one of",
    ENDPOINT.replace('url = "https://rerank.example"', ""): "the key url is missing",
    ENDPOINT.replace("https://", "https://u:sk-12345@"): "url must not hold a password",
    ENDPOINT.replace("https://", ""): "url must be an http or https address",
    ENDPOINT.replace("example", "example/#part"): "without a # part",
    ENDPOINT.replace('"https://rerank.example"', "3"): "url must be an http or https address",
    ENDPOINT.replace('model = "some-model"', ""): "the key model is missing",
    LISTWISE + "window = 5\nstep = 6": "step must not exceed window",
    LISTWISE + "window = 1": "window must be a whole number from 2",
    LISTWISE + "[extra]\nmessages = []": "extra cannot set messages",
    LISTWISE + "raw_scores = true": "the key raw_scores is unknown",
    'kind = "cascade"': "the key stage is missing",
    'kind = "cascade"\nstage = 3': r"stage must be written as \[\[stage\]\] tables",
    'kind = "cascade"\n[[stage]]\nmodel = "untrained"': "fewer than two stages",
    CASCADE.replace("keep = 30", ""): "stage 1: the key keep is missing",
    CASCADE.replace("keep = 30", "keep = 0"): "stage 1: keep must be a whole number from 1",
    CASCADE.replace("keep = 30", "keep = 5"): "no stage can keep more than the one before",
    CASCADE + "keep = 3": "stage 3: nothing follows the last stage",
    CASCADE.replace("endpoint.toml", "recipe.toml"): "cannot be a stage of a cascade",
    CASCADE.replace("budget_ms = 800", "budget_ms = -1"): "budget_ms must be a number from 1",
    CASCADE.replace("endpoint.toml", "bad.toml"): "The recipe bad.toml has no kind",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=lambda text: BAD_FILES[text][:40])
def test_bad_files_are_named_in_one_sentence(text: str, tmp_path: Path) -> None:
    write(tmp_path, ENDPOINT, "endpoint.toml")
    write(tmp_path, LISTWISE, "sub/listwise.toml")
    write(tmp_path, "", "bad.toml")
    with pytest.raises(BadRecipe, match=BAD_FILES[text]) as failure:
        read_recipe(write(tmp_path, text))
    assert "sk-12345" not in str(failure.value)
    assert str(failure.value).startswith("The recipe ")


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nowhere\.toml' cannot be read"):
        read_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(ModelNotFound, match="cannot be read"):
        read_recipe(tmp_path)
    path = tmp_path / "bytes.toml"
    path.write_bytes(b'kind = "\xff\xfe"')
    with pytest.raises(BadRecipe, match="is not TOML"):
        read_recipe(path)


@given(st.text(max_size=60))
def test_no_address_breaks_the_reader(text: str) -> None:
    for front in ("cohere+https://", "listwise+http://", "://"):
        try:
            build(read_recipe(front + text + "#m"), none_to_load)
        except RerankError:
            continue


def test_the_key_is_read_when_the_reranker_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_RERANK_KEY", raising=False)
    recipe = read_recipe(write(tmp_path, ENDPOINT + 'key_env = "MY_RERANK_KEY"'))
    with pytest.raises(BadRecipe, match="The environment variable MY_RERANK_KEY is not set"):
        build(recipe, none_to_load)
    monkeypatch.setenv("MY_RERANK_KEY", "k")
    assert isinstance(build(recipe, none_to_load), EndpointReranker)


def test_names_that_are_recipes() -> None:
    assert is_recipe("folder/mine.toml") and is_recipe("tei+http://host")
    assert not is_recipe("untrained") and not is_recipe("owner/model@main")


def test_the_loader_takes_recipes_and_addresses(tmp_path: Path) -> None:
    def answer(asked: Asked, handler: Any) -> Any:
        return 200, ranked(asked.body["query"], asked.body["texts"], "score")

    with serving(answer) as server:
        address = server.url.replace("http://", "tei+http://")
        model = load_reranker(address)
        assert model.score(RerankRequest("apples", ["pears", "apples"])).relevance.tolist() == [
            0,
            1,
        ]
        text = CASCADE.replace("endpoint.toml", address).replace("sub/listwise.toml", address)
        cascade = load_reranker(str(write(tmp_path, text)), "cpu")
        request = RerankRequest("apples", ["pears", "apples"])
        scores = cascade.score(request)
        with ThreadPoolExecutor(6) as pool:
            others = list(pool.map(cascade.score, [request] * 12))
    assert scores.relevance[1] == 1.0
    assert all(np.array_equal(each.logits, scores.logits) for each in others)
    assert all(each.notes == () for each in others)
    assert cascade.card.name == "untrained → tei → tei"
