"""Rerankers described by a small TOML file, or by an address.

    kind = "endpoint"                       kind = "cascade"
    dialect = "cohere"                      budget_ms = 800
    url = "https://api.cohere.com"
    model = "rerank-v3.5"                   [[stage]]
    key_env = "COHERE_API_KEY"              model = "untrained"
                                            keep = 30
    kind = "listwise"
    url = "http://localhost:8000/v1"        [[stage]]
    model = "some-chat-model"               model = "listwise.toml"

The first as an address: cohere+https://COHERE_API_KEY@api.cohere.com#rerank-v3.5, where the name
before the @ is that of an environment variable.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2

from rerank.cascade import CascadeReranker, Stage
from rerank.errors import BadRecipe, ModelNotFound
from rerank.remote.client import JsonClient, key_from_environment
from rerank.remote.dialects import DIALECTS, essential_fields
from rerank.remote.endpoint import MAX_DOCUMENT_CHARACTERS, EndpointReranker
from rerank.remote.listwise import ListwiseReranker
from rerank.tables import FLAG, TABLE, TEXT, VARIABLE, Check, checked, number, whole
from rerank.types import Reranker

CHAT_PATH = "/chat/completions"
KINDS = ("endpoint", "listwise", "cascade")


@dataclass(frozen=True)
class EndpointRecipe:
    """Fields as in `EndpointReranker` and `JsonClient`; `url` is the complete address."""

    dialect: str
    url: str
    model: str = ""
    name: str = ""
    key_env: str = ""
    timeout_seconds: float = 30.0
    connect_seconds: float = 5.0
    read_seconds: float | None = None
    max_retries: int = 2
    raw_scores: bool = False
    max_documents: int | None = None
    max_request_bytes: int | None = None
    max_document_characters: int = MAX_DOCUMENT_CHARACTERS
    parallel: int = 4
    model_revision: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ListwiseRecipe:
    """Fields as in `ListwiseReranker` and `JsonClient`; `url` is the complete address."""

    url: str
    model: str
    name: str = ""
    key_env: str = ""
    timeout_seconds: float = 60.0
    connect_seconds: float = 5.0
    read_seconds: float | None = None
    max_retries: int = 2
    window: int = 20
    step: int = 10
    depth: int = 100
    passage_characters: int = 1200
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRecipe:
    """`model`: a name for the loader, or the recipe that stood there. `keep` 0: the last stage."""

    model: str | EndpointRecipe | ListwiseRecipe
    keep: int = 0


@dataclass(frozen=True)
class CascadeRecipe:
    """As in `CascadeReranker`."""

    stages: tuple[StageRecipe, ...]
    name: str = ""
    budget_ms: float | None = None
    budget_pairs: int | None = None


Recipe = EndpointRecipe | ListwiseRecipe | CascadeRecipe


_CLIENT_CHECKS = {
    "name": TEXT,
    "url": Check("an http or https address", lambda value: isinstance(value, str), shown=False),
    "model": TEXT,
    "key_env": VARIABLE,
    "timeout_seconds": number(0.05, 3600),
    "connect_seconds": number(0.05, 600),
    "read_seconds": number(0.05, 3600),
    "max_retries": whole(0, 20),
    "extra": TABLE,
}
_ENDPOINT_CHECKS = {
    **_CLIENT_CHECKS,
    "dialect": Check(f"one of {', '.join(DIALECTS)}", lambda value: value in list(DIALECTS)),
    "raw_scores": FLAG,
    "max_documents": whole(1, 100_000),
    "max_request_bytes": whole(1000, 10**9),
    "max_document_characters": whole(1, 10**8),
    "parallel": whole(1, 64),
    "model_revision": TEXT,
}
_LISTWISE_CHECKS = {
    **_CLIENT_CHECKS,
    "window": whole(2, 200),
    "step": whole(1, 200),
    "depth": whole(1, 100_000),
    "passage_characters": whole(20, 10**7),
}
_CASCADE_CHECKS = {
    "name": TEXT,
    "stage": Check(
        "written as [[stage]] tables",
        lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
    ),
    "budget_ms": number(1, 3_600_000),
    "budget_pairs": whole(1, 10**8),
}
_STAGE_CHECKS = {"model": TEXT, "keep": whole(1, 100_000)}


def is_recipe(name: str) -> bool:
    """Whether a model's name is a recipe's: a file *.toml or an address."""
    return name.endswith(".toml") or "://" in name


def read_recipe(name: str | Path) -> Recipe:
    """The recipe in a TOML file, or of an address such as tei+http://localhost:8080.

    Stages of a cascade that are recipes themselves are read with it; their paths start at its
    folder. Raises ModelNotFound when there is no such file, and BadRecipe.
    """
    if "://" in str(name):
        return _from_address(str(name))
    return _from_file(Path(name).expanduser(), is_stage=False)


def build(recipe: Recipe, load: Callable[[str], Reranker]) -> Reranker:
    """The reranker; `load` gives those that a cascade names. Keys are read from the environment
    here. Raises BadRecipe, and what `load` raises."""
    if isinstance(recipe, EndpointRecipe):
        return EndpointReranker(
            DIALECTS[recipe.dialect],
            _client(recipe),
            recipe.model,
            name=recipe.name,
            raw_scores=recipe.raw_scores,
            extra=recipe.extra,
            max_documents=recipe.max_documents,
            max_request_bytes=recipe.max_request_bytes,
            max_document_characters=recipe.max_document_characters,
            parallel=recipe.parallel,
            model_revision=recipe.model_revision,
        )
    if isinstance(recipe, ListwiseRecipe):
        return ListwiseReranker(
            _client(recipe),
            recipe.model,
            name=recipe.name,
            window=recipe.window,
            step=recipe.step,
            depth=recipe.depth,
            passage_characters=recipe.passage_characters,
            extra=recipe.extra,
        )
    stages = [
        Stage(
            load(each.model) if isinstance(each.model, str) else build(each.model, load), each.keep
        )
        for each in recipe.stages
    ]
    return CascadeReranker(
        stages, budget_ms=recipe.budget_ms, budget_pairs=recipe.budget_pairs, name=recipe.name
    )


def _client(recipe: EndpointRecipe | ListwiseRecipe) -> JsonClient:
    return JsonClient(
        recipe.url,
        key_from_environment(recipe.key_env),
        recipe.key_env,
        timeout_seconds=recipe.timeout_seconds,
        connect_seconds=recipe.connect_seconds,
        read_seconds=recipe.read_seconds,
        max_retries=recipe.max_retries,
    )


def _from_file(path: Path, is_stage: bool) -> Recipe:
    where = f"The recipe {path.name}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelNotFound(f"The recipe file {str(path)!r} cannot be read.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecipe(f"{where} is not TOML: {error}.") from error
    kind = table.pop("kind", None)
    if kind == "endpoint":
        return _endpoint(where, table)
    if kind == "listwise":
        return _listwise(where, table)
    if kind == "cascade":
        if is_stage:
            raise BadRecipe(f"{where} is a cascade, which cannot be a stage of a cascade.")
        return _cascade(where, table, path.parent)
    if kind is None:
        raise BadRecipe(f"{where} has no kind: it must be one of {', '.join(KINDS)}.")
    raise BadRecipe(f"{where}: kind must be one of {', '.join(KINDS)}, not {kind!r}.")


def _from_address(text: str) -> EndpointRecipe | ListwiseRecipe:
    kind, plus, address = text.partition("+")
    kinds = [*DIALECTS, "listwise"]
    where = "The address of the reranker"
    if not plus or kind not in kinds:
        raise BadRecipe(
            f"{where} must begin with what is spoken there, such as cohere+https://; known are "
            f"{', '.join(kinds)}."
        )
    url, _, model = address.partition("#")
    table: dict[str, Any] = {}
    scheme, _, rest = url.partition("://")
    # Up to the path only: an @ further on belongs to it.
    front = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "@" in front:
        table["key_env"], _, _ = front.rpartition("@")
        url = f"{scheme}://{rest[len(table['key_env']) + 1 :]}"
    table["url"] = url
    if model:
        table["model"] = unquote(model)
    if kind == "listwise":
        return _listwise(where, table)
    return _endpoint(where, {**table, "dialect": kind})


def _endpoint(where: str, table: Mapping[str, Any]) -> EndpointRecipe:
    values = checked(where, table, _ENDPOINT_CHECKS, ("dialect", "url"))
    dialect = DIALECTS[values["dialect"]]
    if dialect.needs_model and "model" not in values:
        raise BadRecipe(f"{where}: the key model is missing; {dialect.name} wants its name.")
    if values.get("raw_scores") and dialect.raw_fields is None:
        raise BadRecipe(f"{where}: raw_scores cannot be had from {dialect.name}.")
    _check_extra(where, values, essential_fields(dialect))
    url = _complete(where, values["url"], lambda path: path if path != "/" else dialect.path)
    return EndpointRecipe(**{**values, "url": url})


def _listwise(where: str, table: Mapping[str, Any]) -> ListwiseRecipe:
    values = checked(where, table, _LISTWISE_CHECKS, ("url", "model"))
    _check_extra(where, values, {"model", "messages", "stream", "n"})

    def complete(path: str) -> str:
        path = path.rstrip("/") or "/v1"
        return path if path.endswith(CHAT_PATH) else path + CHAT_PATH

    recipe = ListwiseRecipe(**{**values, "url": _complete(where, values["url"], complete)})
    if recipe.step > recipe.window:
        raise BadRecipe(f"{where}: step must not exceed window, or passages would be left out.")
    return recipe


def _cascade(where: str, table: Mapping[str, Any], folder: Path) -> CascadeRecipe:
    values = checked(where, table, _CASCADE_CHECKS, ("stage",))
    tables = values.pop("stage")
    if len(tables) < 2:
        raise BadRecipe(f"{where} has fewer than two stages: name its one model directly.")
    stages = tuple(
        _stage(f"{where}, stage {number}", each, folder, is_last=number == len(tables))
        for number, each in enumerate(tables, start=1)
    )
    kept = [stage.keep for stage in stages[:-1]]
    if kept != sorted(kept, reverse=True):
        raise BadRecipe(f"{where}: no stage can keep more than the one before it.")
    return CascadeRecipe(stages, **values)


def _stage(where: str, table: Mapping[str, Any], folder: Path, is_last: bool) -> StageRecipe:
    values = checked(where, table, _STAGE_CHECKS, ("model",) if is_last else ("model", "keep"))
    if is_last and "keep" in values:
        raise BadRecipe(f"{where}: nothing follows the last stage, so leave its keep out.")
    model, keep = values["model"], values.get("keep", 0)
    if not is_recipe(model):
        return StageRecipe(model, keep)
    recipe = (
        _from_address(model)
        if "://" in model
        else _from_file(folder / Path(model).expanduser(), is_stage=True)
    )
    assert not isinstance(recipe, CascadeRecipe)
    return StageRecipe(recipe, keep)


def _check_extra(where: str, values: Mapping[str, Any], reserved: set[str]) -> None:
    taken = sorted(reserved & set(values.get("extra", {})))
    if taken:
        raise BadRecipe(f"{where}: extra cannot set {taken[0]}.")


def _complete(where: str, url: str, path_of: Callable[[str], str]) -> str:
    """The address with `path_of(its path)`. Raises BadRecipe, which repeats no address that might
    hold a password."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        is_good = False
    if not is_good or parts.fragment or re.search(r"\s", url):
        raise BadRecipe(f"{where}: url must be an http or https address, without a # part.")
    if parts.username is not None:
        raise BadRecipe(f"{where}: url must not hold a password; use key_env.")
    return parts._replace(path=path_of(parts.path or "/")).geturl()
