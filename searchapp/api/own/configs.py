"""/api/v1/collections/…/configs: versions, the draft, activation, and two of them side by side."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic import Field as Limited

from searchapp.engine import remote
from searchapp.models import Collection, Family, Scope, SearchConfig
from searchapp.search import configs, pipeline
from searchapp.search.result import SearchResult

from ..auth import Caller
from ..models_rerank import seconds_for
from ..refusals import Refusal
from .endpoint import Answer, Call, endpoint
from .places import held
from .results import Result, Stages, results, stages
from .schemas import MOST_INT, Body, Nothing, Query, Rerank, Shown, Text
from .searches import granted_for

ALL_VERSIONS = "collections/<slug:slug>/configs"
ONE_VERSION = "collections/<slug:slug>/configs/<int:version>"


class Term(Body):
    term: Text
    meaning: Text


class ConfigValues(Shown):
    """`rerank_depth` 0: no rerank; a leg's depth 0: the leg is off. `threshold` None keeps all."""

    instruction: str
    glossary: list[Term]
    fusion: Literal["weighted", "rrf"]
    dense_weight: float
    rrf_k: int
    lexical_depth: int
    dense_depth: int
    bm25_variant: Literal["lucene", "okapi"]
    bm25_k1: float
    bm25_b: float
    rerank_depth: int
    model: str
    threshold: float | None


class Config(Shown):
    """One version. `is_draft`: it can still change. `fingerprint` changes whenever a value does."""

    version: int
    is_active: bool
    is_draft: bool
    fingerprint: str
    created_at: datetime
    created_by: str | None
    values: ConfigValues


class ConfigList(Shown):
    """Newest first."""

    configs: list[Config]


def _without_defaults(schema: dict[str, Any]) -> None:
    """What is left out keeps its value, whatever a new config begins with."""
    for each in schema["properties"].values():
        each.pop("default", None)


class Draft(Body):
    """What is named changes, in the open draft or in a new one made from the active version.
    `seen`: the fingerprint of the draft you started from; where it is another by now, nothing
    changes. `threshold` null keeps all."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    seen: str | None = None
    instruction: Text = Limited("", max_length=configs.MAX_INSTRUCTION_CHARACTERS)
    glossary: list[Term] = Limited([], max_length=configs.MAX_GLOSSARY_ROWS)
    fusion: Literal["weighted", "rrf"] = "weighted"
    dense_weight: float = Limited(0.7, ge=0, le=1)
    rrf_k: int = Limited(60, ge=1, le=1000)
    lexical_depth: int = Limited(200, ge=0, le=1000)
    dense_depth: int = Limited(200, ge=0, le=1000)
    bm25_variant: Literal["lucene", "okapi"] = "lucene"
    bm25_k1: float = Limited(0.9, ge=0, le=10)
    bm25_b: float = Limited(0.4, ge=0, le=1)
    rerank_depth: int = Limited(100, ge=0, le=200)
    model: Text = Limited("default", min_length=1, max_length=300)
    threshold: float | None = Limited(None, ge=0, le=1)


class Activate(Body):
    """`reason`: for the history. `seen_active`: the version that was active when you decided; where
    another one is by now, nothing happens."""

    reason: Text = Limited(min_length=1, max_length=configs.MAX_REASON_CHARACTERS)
    seen_active: int | None = Limited(None, ge=1, le=MOST_INT)


class Activation(Shown):
    version: int
    previous: int | None
    activated_by: str | None
    activated_at: datetime
    reason: str


class ActivationList(Shown):
    """Newest first."""

    activations: list[Activation]


class Change(Shown):
    """A field in which two versions differ, its values in words."""

    field: str
    name: str
    before: str
    after: str


class Compare(Body):
    """Two versions and a query to search by both."""

    before: int = Limited(ge=1, le=MOST_INT)
    after: int = Limited(ge=1, le=MOST_INT)
    query: Text = Limited(min_length=1, max_length=pipeline.MAX_QUERY_CHARACTERS)
    limit: int = Limited(10, ge=1, le=100)


class Side(Shown):
    version: int
    rerank: Rerank
    stages: Stages
    results: list[Result]


class Comparison(Shown):
    """`shared`: passages that both show among their first `limit`; `moved` of them stand at
    another place."""

    changes: list[Change]
    before: Side
    after: Side
    shared: int
    moved: int


class Listed(Query):
    limit: int = Limited(30, ge=1, le=1000)


@endpoint("GET", ALL_VERSIONS, Scope.ADMIN, Family.COLLECTIONS, query=Listed, answer=ConfigList)
def list_configs(call: Call, asked: Listed, slug: str) -> Answer:
    """The versions of a collection's search config."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    rows = collection.configs.select_related("created_by").order_by("-version")[: asked.limit]
    return ConfigList(configs=[_record(collection, row) for row in rows])


@endpoint("GET", ONE_VERSION, Scope.ADMIN, Family.COLLECTIONS, answer=Config)
def read_config(call: Call, asked: Nothing, slug: str, version: int) -> Answer:
    """One version."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    found = _version(collection, version)
    return found if isinstance(found, Refusal) else _record(collection, found)


@endpoint(
    "PUT",
    f"{ALL_VERSIONS}/draft",
    Scope.ADMIN,
    Family.COLLECTIONS,
    body=Draft,
    answer=Config,
    refusals=(409,),
)
def save_draft(call: Call, asked: Draft, slug: str) -> Answer:
    """Writes the open draft. It searches nothing before it is activated."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    changes = asked.model_dump(exclude_unset=True, exclude={"seen"})
    is_new = configs.open_draft(collection) is None
    draft = configs.draft_for(collection, call.caller.user)
    wrong = configs.save_draft(draft, changes, asked.seen)
    if wrong:
        if is_new:
            configs.discard_draft(collection)
        field, sentence = next(iter(wrong.items()))
        # The schema has refused what is out of range; these two are about the state of things.
        return Refusal(400 if field else 409, f"bad-{field}" if field else "overtaken", sentence)
    return _record(collection, draft)


@endpoint("DELETE", f"{ALL_VERSIONS}/draft", Scope.ADMIN, Family.COLLECTIONS, statuses=(204,))
def discard_draft(call: Call, asked: Nothing, slug: str) -> Answer:
    """Deletes the open draft."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    if not configs.discard_draft(collection):
        return Refusal(404, "no-draft", "There is no open draft.")
    return None


@endpoint(
    "POST",
    f"{ONE_VERSION}/activate",
    Scope.ADMIN,
    Family.COLLECTIONS,
    body=Activate,
    answer=Activation,
    refusals=(409,),
)
def activate_config(call: Call, asked: Activate, slug: str, version: int) -> Answer:
    """Makes a version the one that searches: the draft, or an earlier one to go back."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    found = _version(collection, version)
    if isinstance(found, Refusal):
        return found
    seen_id = None
    if asked.seen_active is not None:
        seen = _version(collection, asked.seen_active)
        if isinstance(seen, Refusal):
            return seen
        seen_id = seen.pk
    outcome = configs.activate(found, call.caller.user, asked.reason, seen_id)
    if outcome.activation is None:
        return Refusal(409, "not-activated", outcome.problem)
    act = outcome.activation
    return Activation(
        version=found.version,
        previous=act.previous.version if act.previous is not None else None,
        activated_by=act.activated_by.get_username() if act.activated_by is not None else None,
        activated_at=act.activated_at,
        reason=act.reason,
    )


@endpoint(
    "GET",
    "collections/<slug:slug>/activations",
    Scope.ADMIN,
    Family.COLLECTIONS,
    query=Listed,
    answer=ActivationList,
)
def list_activations(call: Call, asked: Listed, slug: str) -> Answer:
    """Who made which version active, when and why."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    rows = collection.activations.select_related("config", "previous", "activated_by")
    return ActivationList(
        activations=[
            Activation(
                version=act.config.version,
                previous=act.previous.version if act.previous is not None else None,
                activated_by=act.activated_by.get_username() if act.activated_by else None,
                activated_at=act.activated_at,
                reason=act.reason,
            )
            for act in rows[: asked.limit]
        ]
    )


@endpoint(
    "POST",
    f"{ALL_VERSIONS}/compare",
    Scope.ADMIN,
    Family.SEARCH,
    body=Compare,
    answer=Comparison,
)
def compare_configs(call: Call, asked: Compare, slug: str) -> Answer:
    """What differs between two versions, and one query searched by each.
    Nothing is stored; a draft stays a draft."""
    collection = held(call.caller, slug, Scope.ADMIN)
    if isinstance(collection, Refusal):
        return collection
    before, after = _version(collection, asked.before), _version(collection, asked.after)
    if isinstance(before, Refusal):
        return before
    if isinstance(after, Refusal):
        return after
    searched = _searched(call.caller, collection, asked.query, [before, after])
    if isinstance(searched, Refusal):
        return searched
    old, new = ([hit.passage_id for hit in each.shown[: asked.limit]] for each in searched)
    shared = set(old) & set(new)
    return Comparison(
        changes=[Change(**vars(each)) for each in configs.diff(before, after)],
        before=_side(searched[0], asked.limit),
        after=_side(searched[1], asked.limit),
        shared=len(shared),
        moved=sum(1 for each in shared if old.index(each) != new.index(each)),
    )


def _searched(
    caller: Caller, collection: Collection, query: str, versions: list[SearchConfig]
) -> list[SearchResult] | Refusal:
    """By each version, their reranks at the same time."""
    granted = granted_for(caller, *versions)
    if isinstance(granted, Refusal):
        return granted
    embedder, reranker = remote.embedder(), remote.reranker()
    seconds = seconds_for(granted.latency)
    started = [
        pipeline.start(
            query,
            collection,
            user=caller.user,
            config=config,
            embedder=embedder,
            reranker=reranker if config.rerank_depth else None,
            deadline=time.time() + seconds,
        )
        for config in versions
    ]
    return [
        pipeline.finish(result, reranker.collect(result.ticket, time.time() + seconds), config)
        if result.rerank.status == "pending"
        else result
        for result, config in zip(started, versions, strict=True)
    ]


def _side(result: SearchResult, limit: int) -> Side:
    return Side(
        version=result.config_version,
        rerank=Rerank.of(result.rerank),
        stages=stages(result),
        results=results(result.shown[:limit]),
    )


def _version(collection: Collection, version: int) -> SearchConfig | Refusal:
    found = None
    if version <= MOST_INT:
        rows = collection.configs.select_related("collection", "created_by")
        found = rows.filter(version=version).first()
    return found or Refusal(404, "unknown-version", f"There is no version {version}.")


def _record(collection: Collection, row: SearchConfig) -> Config:
    return Config(
        version=row.version,
        is_active=collection.active_config_id == row.pk,
        is_draft=row.frozen_at is None,
        fingerprint=configs.fingerprint(row),
        created_at=row.created_at,
        created_by=row.created_by.get_username() if row.created_by is not None else None,
        values=ConfigValues.model_validate(configs.values(row)),
    )
