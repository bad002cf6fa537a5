"""A search for a program: as deep as what it wants, reranked by whom it names."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from searchapp import metrics
from searchapp.engine import remote
from searchapp.engine.sockets import RerankOutcome
from searchapp.models import Collection, Passage, Scope, SearchConfig
from searchapp.search import pipeline
from searchapp.search.access import snapshot
from searchapp.search.filters import Filters
from searchapp.search.result import Hit

from .auth import Caller
from .collection_names import named
from .limits import Cost, Latency, charge
from .models_named import chosen
from .models_rerank import seconds_for
from .refusals import Refusal

# Passages each leg is asked for: so many per wanted result first, and never more than the most.
PER_RESULT = 3
MOST_DEPTH = 20_000
# How often a search goes deeper that has found too few different results.
MOST_DEEPER = 2
# A thorough search reranks so many.
THOROUGH_RERANK = 200


# How often a search begins whose passages are replaced while it is reranked.
TRIES = 4

Shape = Callable[["Found"], dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """`passages` with their scores, best first; scores never rise."""

    collection: Collection
    passages: Sequence[tuple[Passage, float]]


@dataclass(frozen=True)
class Answered:
    """`body` as shaped. `rerank` says what became of it; where it is not ok, the scores are those
    of the first stage."""

    body: dict[str, Any]
    rerank: RerankOutcome


def documents(passage: Passage) -> Sequence[Hashable]:
    return [passage.document_id]


def pages(passage: Passage) -> Sequence[int]:
    """From 0; none for a document without pages."""
    if passage.page_first is None:
        return []
    return range(passage.page_first - 1, passage.page_last or passage.page_first)


def passages(passage: Passage) -> Sequence[Hashable]:
    return [passage.pk]


def find(
    caller: Caller,
    collection_name: str,
    query: str,
    filters: Filters,
    *,
    wanted: int,
    counted: Callable[[Passage], Sequence[Hashable]],
    shape: Shape,
    reranker: str | None = None,
    thorough: bool = False,
) -> Answered | Refusal:
    """Searches by the collection's active config, deeper where fewer than `wanted` different
    results are `counted`. `reranker` None: no rerank. `shape` makes the answer from what was
    found, and reads what it needs for it from the same state of the database.

    A rerank that does not come leaves the first stage's order. 404 for the collection or the
    reranker, 429 above the key's limits. Raises BadQuery.
    """
    collection = named(caller, collection_name, Scope.SEARCH)
    if isinstance(collection, Refusal):
        return collection
    config = _config(caller, collection, reranker, thorough)
    if isinstance(config, Refusal):
        return config
    latency: Latency = "fast"
    if config.rerank_depth:
        granted = charge(caller, Cost(requests=0, pairs=config.rerank_depth))
        if isinstance(granted, Refusal):
            return granted
        latency = granted.latency
    depth = max(wanted * PER_RESULT, config.lexical_depth, config.dense_depth)
    tries, deeper = 1, 0
    while True:
        deep = _deep(config, depth)
        # At last all is read from one state of the database, however fast it changes. Only the
        # rerank's worker may miss passages then, and takes them for empty.
        with snapshot() if tries == TRIES else nullcontext():
            result = pipeline.search(
                query[: pipeline.MAX_QUERY_CHARACTERS],
                collection,
                user=caller.user,
                config=deep,
                filters=filters,
                embedder=remote.embedder(),
                reranker=remote.reranker() if deep.rerank_depth else None,
                deadline=time.time() + seconds_for(latency),
            )
            metrics.observe_search(result)
            with snapshot():
                found = _scored(result.shown)
                if len(found) < len(result.shown) and tries < TRIES:
                    tries += 1
                    continue
                distinct = {each for passage, _ in found for each in counted(passage)}
                is_all = all(leg.count < depth for leg in result.legs.values())
                if is_all or len(distinct) >= wanted or deeper == MOST_DEEPER:
                    return Answered(shape(Found(collection, found)), result.rerank)
        # Few documents with many passages each: look deeper. What was reranked is known by now.
        depth, deeper = min(4 * depth, MOST_DEPTH), deeper + 1


def _config(
    caller: Caller, collection: Collection, reranker: str | None, thorough: bool
) -> SearchConfig | Refusal:
    """A copy that is never saved: the collection's own, or with another model or instruction."""
    if collection.active_config is None:
        return Refusal(400, "no-config", "The collection has no active search config.")
    config = copy.copy(collection.active_config)
    if reranker is None:
        config.rerank_depth = 0
        return config
    picked = chosen(caller, reranker)
    if isinstance(picked, Refusal):
        return picked
    if picked.config is not None:
        config.instruction, config.glossary = picked.config.instruction, picked.config.glossary
    if picked.model != "default":
        config.model = picked.model
    if thorough or not config.rerank_depth:
        config.rerank_depth = THOROUGH_RERANK if thorough else 100
    return config


def _deep(config: SearchConfig, depth: int) -> SearchConfig:
    """Legs that are turned off stay off."""
    deep = copy.copy(config)
    deep.lexical_depth = depth if config.lexical_depth else 0
    deep.dense_depth = depth if config.dense_depth else 0
    return deep


def _scored(hits: Sequence[Hit]) -> list[tuple[Passage, float]]:
    """Those below the rerank's depth keep their order with no more than the last reranked one's
    score, as two scales cannot be mixed."""
    # Places are enough: many hits are looked at for each that is told, whose text is read then.
    places = Passage.objects.only("document_id", "start", "end", "page_first", "page_last")
    rows = places.in_bulk([hit.passage_id for hit in hits])
    found: list[tuple[Passage, float]] = []
    ceiling = 1.0
    for hit in hits:
        score = hit.fused_score if hit.relevance_shown is None else hit.relevance_shown
        ceiling = min(ceiling, score)
        if hit.passage_id in rows:
            found.append((rows[hit.passage_id], max(ceiling, 0.0)))
    return found
