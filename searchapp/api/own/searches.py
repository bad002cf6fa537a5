"""/api/v1/…/search and /api/v1/searches: a search with all that its stages did."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field as Limited

from searchapp import metrics
from searchapp.engine import remote
from searchapp.models import Document, Family, Scope, SearchConfig, Trace
from searchapp.search import explain, pipeline, traces
from searchapp.search.configs import MAX_INSTRUCTION_CHARACTERS
from searchapp.search.result import SearchResult

from ..auth import Caller
from ..limits import Cost, Granted, charge
from ..models_rerank import seconds_for
from ..refusals import Refusal
from .endpoint import Answer, Call, endpoint
from .places import seen
from .results import Result, Stages, results, stages
from .schemas import Body, Path, Query, Rerank, Shown, Text

MOST_RESULTS = 1000


class Filters(Body):
    """Documents must pass all that is named, by any of its values. `where`: a condition such as
    {"year": {"$gte": "2024"}}, as `/v1` takes it."""

    media_type: list[str] = []
    language: list[str] = []
    metadata: dict[str, list[str]] = {}
    where: dict[str, Any] | None = None


class Asked(Body):
    """`instruction` replaces that of the collection's config for this search; an empty one turns it
    off. `wait`: until the rerank is there or too late; else read the search again. `left_out`:
    also results below the threshold."""

    query: Text = Limited(min_length=1, max_length=pipeline.MAX_QUERY_CHARACTERS)
    instruction: Text | None = Limited(None, max_length=MAX_INSTRUCTION_CHARACTERS)
    filters: Filters | None = None
    rerank: bool = True
    wait: bool = True
    limit: int = Limited(10, ge=1, le=MOST_RESULTS)
    left_out: bool = False


class Again(Query):
    """`offset`: results to pass over. `left_out`: also results below the threshold."""

    limit: int = Limited(10, ge=1, le=MOST_RESULTS)
    offset: int = Limited(0, ge=0, le=100_000)
    left_out: bool = False


class Missing(Query):
    path: Path


class Search(Shown):
    """One search. `instruction`: as the reranker read it. `candidates`: all that the first stage
    found, `left_out` of them below the threshold. `confidence`: how probable it is that the first
    result is relevant, None where that is not known. `results`: best first."""

    uid: UUID
    collection: str
    query: str
    instruction: str
    filters: dict[str, Any]
    config_version: int
    created_at: datetime
    rerank: Rerank
    stages: Stages
    confidence: float | None
    candidates: int
    left_out: int
    results: list[Result]


class Explanation(Shown):
    """Where a document went: `reason` in a sentence, `details` what each leg says of it."""

    path: str
    kind: Literal[
        "present",
        "other collection",
        "not ready",
        "newer",
        "filtered",
        "below threshold",
        "not found",
    ]
    reason: str
    details: list[str]
    rerank: Rerank


@endpoint(
    "POST",
    "collections/<slug:slug>/search",
    Scope.SEARCH,
    Family.SEARCH,
    body=Asked,
    answer=Search,
)
def search(call: Call, asked: Asked, slug: str) -> Answer:
    """Searches a collection by its active config and tells what every stage did.
    A rerank that does not come leaves the first stage's order: look at `rerank.status`."""
    collection = seen(call.caller, slug)
    if isinstance(collection, Refusal):
        return collection
    config = pipeline.active_config(collection)
    granted = granted_for(call.caller, config if asked.rerank else None)
    if isinstance(granted, Refusal):
        return granted
    reranker = remote.reranker()
    deadline = time.time() + seconds_for(granted.latency)
    result = pipeline.start(
        asked.query,
        collection,
        user=call.caller.user,
        config=config,
        instruction=asked.instruction,
        filters=asked.filters.model_dump() if asked.filters else None,
        embedder=remote.embedder(),
        reranker=reranker if asked.rerank else None,
        deadline=deadline,
    )
    trace = traces.record(result, call.caller.user, instruction=asked.instruction)
    trace.collection, trace.config = collection, config
    if result.rerank.status != "pending":
        metrics.observe_search(result)
    elif asked.wait:
        result = traces.collect(trace, reranker, deadline)
        metrics.observe_search(result)
    return _shown(trace, result, asked.limit, 0, asked.left_out)


@endpoint("GET", "searches/<uuid:uid>", Scope.SEARCH, Family.SEARCH, query=Again, answer=Search)
def read_search(call: Call, asked: Again, uid: UUID) -> Answer:
    """A search made before, exactly as it was; waits for its rerank where that is pending."""
    found = _found(call.caller, uid)
    if isinstance(found, Refusal):
        return found
    result = SearchResult.from_json(found.result)
    if result.rerank.status == "pending":
        result = traces.collect(found, remote.reranker())
        metrics.observe_search(result)
    return _shown(found, result, asked.limit, asked.offset, asked.left_out)


@endpoint(
    "GET",
    "searches/<uuid:uid>/explanation",
    Scope.SEARCH,
    Family.SEARCH,
    query=Missing,
    answer=Explanation,
)
def explain_document(call: Call, asked: Missing, uid: UUID) -> Answer:
    """Why the document of this path is not among the results, or where it stands."""
    found = _found(call.caller, uid)
    if isinstance(found, Refusal):
        return found
    document = Document.objects.filter(collection=found.collection, path=asked.path).first()
    if document is None:
        sentence = f"There is no document “{asked.path[:200]}” in the collection."
        return Refusal(404, "unknown-document", sentence)
    why = explain.explain_missing(found, document)
    rerank = SearchResult.from_json(found.result).rerank
    return Explanation(
        path=document.path,
        kind=why.kind,
        reason=why.reason,
        details=list(why.details),
        rerank=Rerank.of(rerank),
    )


def granted_for(caller: Caller, *configs: SearchConfig | None) -> Granted | Refusal:
    """Takes the pairs that searches by these configs may rerank; None reranks nothing."""
    pairs = sum(config.rerank_depth for config in configs if config is not None)
    return charge(caller, Cost(pairs=pairs)) if pairs else Granted("fast")


def _found(caller: Caller, uid: UUID) -> Trace | Refusal:
    try:
        return traces.load(uid, caller.user)
    except Trace.DoesNotExist:
        return Refusal(404, "unknown-search", "There is no such search, or not for this key.")


def _shown(trace: Trace, result: SearchResult, limit: int, offset: int, all_hits: bool) -> Search:
    hits = result.hits if all_hits else result.shown
    return Search(
        uid=trace.uid,
        collection=trace.collection.slug,
        query=result.query,
        instruction=result.instruction,
        filters=dict(result.filters),
        config_version=result.config_version,
        created_at=trace.created_at,
        rerank=Rerank.of(result.rerank),
        stages=stages(result),
        confidence=result.confidence,
        candidates=len(result.hits),
        left_out=len(result.hits) - len(result.shown),
        results=results(hits[offset : offset + limit]),
    )
