"""The tools that rank: search, explain_result, rerank."""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import UUID

from pydantic import Field, JsonValue

from searchapp import metrics
from searchapp.engine import remote
from searchapp.models import Document, Passage, Scope, Trace
from searchapp.search import display, explain, pipeline, traces
from searchapp.search.configs import MAX_INSTRUCTION_CHARACTERS
from searchapp.search.result import Hit, SearchResult

from .. import models_rerank
from ..auth import Caller
from ..collection_names import named
from ..limits import Cost, Latency, charge
from ..models_rerank import seconds_for
from ..refusals import Refusal
from ..v1.schemas import Text
from .tools import Asked, Record, rerank_status, tool

MAX_RESULTS = 20
# A passage has about 1000; only odd ones are longer, and read_document has the rest.
TEXT_CHARACTERS = 1500
MAX_DOCUMENTS = 200

UNKNOWN_SEARCH = Refusal(
    404, "unknown-search", "There is no such search, or not for this key. Search again."
)


class Search(Asked):
    collection: Text = Field(description="A name that list_collections gives.")
    query: Text = Field(
        description="What to look for, in words or as a question.",
        min_length=1,
        max_length=pipeline.MAX_QUERY_CHARACTERS,
    )
    k: int = Field(5, ge=1, le=MAX_RESULTS, description="How many passages to return.")
    instruction: Text | None = Field(
        None,
        max_length=MAX_INSTRUCTION_CHARACTERS,
        description="What counts as relevant, for the reranker. Without it, the collection's own.",
    )
    filter: dict[str, JsonValue] | None = Field(
        None,
        description='A condition on the documents\' metadata, such as {"year": {"$gte": "2024"}}. '
        "Operators: $eq $ne $gt $gte $lt $lte $in $nin $and $or.",
    )
    rerank: bool = Field(True, description="False leaves the first stage's order.")


class ExplainResult(Asked):
    search: UUID = Field(description="The `search` of an answer of the tool search.")
    path: Text = Field(description="The path of the document in question.")


class Rerank(Asked):
    query: Text = Field(min_length=1)
    documents: list[Text] = Field(
        min_length=1, max_length=MAX_DOCUMENTS, description="The texts to put in order."
    )
    instruction: Text = Field(
        "",
        max_length=MAX_INSTRUCTION_CHARACTERS,
        description="What counts as relevant, for rerankers that take an instruction.",
    )
    top_n: int | None = Field(None, ge=1, description="How many of the best to return.")
    model: Text = Field(
        "default",
        description="“default”, a model's name, or “podium/<collection>” for the model as that "
        "collection is tuned.",
    )


@tool("Search a collection", Search, Scope.SEARCH)
def search(caller: Caller, asked: Search) -> Record | Refusal:
    """Finds the passages of a collection that answer a query, best first: by words and by meaning,
    then reranked. Look at `rerank.status`: unless it is “ok”, the order is the first stage's and
    less reliable. `start` is where a passage begins in its document, for read_document. `search`
    names this search for explain_result."""
    collection = named(caller, asked.collection, Scope.SEARCH)
    if isinstance(collection, Refusal):
        return collection
    config = pipeline.active_config(collection)
    latency: Latency = "fast"
    if asked.rerank and config.rerank_depth:
        granted = charge(caller, Cost(pairs=config.rerank_depth))
        if isinstance(granted, Refusal):
            return granted
        latency = granted.latency
    reranker = remote.reranker()
    deadline = time.time() + seconds_for(latency)
    result = pipeline.start(
        asked.query,
        collection,
        user=caller.user,
        config=config,
        instruction=asked.instruction,
        filters={"where": asked.filter},
        embedder=remote.embedder(),
        reranker=reranker if asked.rerank else None,
        deadline=deadline,
    )
    trace = traces.record(result, caller.user, instruction=asked.instruction)
    if result.rerank.status == "pending":
        result = traces.collect(trace, reranker, deadline)
    metrics.observe_search(result)
    caller.meter.tokens += result.rerank.tokens
    shown = result.shown[: asked.k]
    passages = display.passages_by_id([hit.passage_id for hit in shown])
    answer: Record = {
        "search": str(trace.uid),
        "rerank": rerank_status(result.rerank),
        "results": [
            _result(hit, passages[hit.passage_id]) for hit in shown if hit.passage_id in passages
        ],
    }
    reasons = [leg.reason for leg in result.legs.values() if leg.status == "skipped"]
    return answer | ({"notes": reasons} if reasons else {})


@tool("Explain a result", ExplainResult, Scope.SEARCH)
def explain_result(caller: Caller, asked: ExplainResult) -> Record | Refusal:
    """Tells why a document is among the results of a search and where each stage put it, or why it
    is missing."""
    try:
        trace = traces.load(asked.search, caller.user)
    except Trace.DoesNotExist:
        return UNKNOWN_SEARCH
    document = Document.objects.filter(collection=trace.collection, path=asked.path).first()
    if document is None:
        sentence = f"There is no document “{asked.path[:200]}” in the collection."
        return Refusal(404, "unknown-document", sentence)
    result = SearchResult.from_json(trace.result)
    if result.rerank.status == "pending":
        result = traces.collect(trace, remote.reranker())
    why = explain.explain_missing(trace, document)
    hits = [hit for hit in result.hits if hit.document_id == document.pk]
    best = min(hits, key=lambda hit: hit.rank, default=None)
    return {
        "path": document.path,
        "kind": why.kind,
        "reason": why.reason,
        "details": list(why.details),
        "rerank": rerank_status(result.rerank),
        "place": None if best is None else _place(best),
    }


@tool("Rerank texts", Rerank, Scope.SEARCH)
def rerank(caller: Caller, asked: Rerank) -> Record | Refusal:
    """Puts texts in the order of their relevance to a query. `index` counts `documents` from 0;
    scores are from 0 to 1, and comparable within one answer only."""
    ranked = models_rerank.rerank(
        caller,
        model=asked.model,
        query=asked.query,
        documents=asked.documents,
        instruction=asked.instruction,
        top_n=asked.top_n,
    )
    if isinstance(ranked, Refusal):
        return ranked
    told: Record = {"status": "ok", "model": ranked.model}
    if ranked.truncated:
        told["notes"] = [f"{ranked.truncated} of the texts were cut, as they are too long."]
    return {
        "rerank": told,
        "results": [{"index": index, "score": round(score, 4)} for index, score in ranked.order],
    }


def _result(hit: Hit, passage: Passage) -> Record:
    document = passage.document
    text = passage.text
    found: Record = {
        "rank": hit.rank,
        "path": document.path,
        "title": document.title or document.path,
        "relevance": _rounded(hit.relevance_shown),
        "first_stage_rank": hit.first_stage_rank,
        "start": passage.start,
        "text": text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]} …",
    }
    if passage.page_first is not None:
        found["page"] = passage.page_first
    if passage.heading_path:
        found["headings"] = [str(each) for each in passage.heading_path]
    return found


def _place(hit: Hit) -> Mapping[str, float | None]:
    return {
        "rank": hit.rank,
        "first_stage_rank": hit.first_stage_rank,
        "words_rank": hit.lexical_rank,
        "meaning_rank": hit.dense_rank,
        "first_stage_score": _rounded(hit.fused_score),
        "relevance": _rounded(hit.relevance_shown),
        "logit": _rounded(hit.logit),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)
