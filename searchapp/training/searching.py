"""One query's candidates, for training and for measuring: the first stage of the collection's own
search, without missing parts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from searchapp.engine.sockets import EmbedSocket
from searchapp.models import Collection, SearchConfig
from searchapp.search import pipeline
from searchapp.search.result import Hit, SearchResult

from .asked import CannotTrain

# Where the config turns reranking off.
DEFAULT_DEPTH = 100
_TRIES = 3
_PAUSE_SECONDS = 1.0


def depth_of(config: SearchConfig) -> int:
    """How many candidates a reranker gets."""
    return config.rerank_depth or DEFAULT_DEPTH


def first_stage(
    query: str, collection: Collection, config: SearchConfig, embedder: EmbedSocket
) -> SearchResult:
    """Tried again while the query's vector is late: a busy machine is no reason to give up, and
    what is learnt with a leg missing would be of another search. Raises CannotTrain."""
    for tried in range(_TRIES):
        if tried:
            time.sleep(_PAUSE_SECONDS)
        result = pipeline.start(
            query[: pipeline.MAX_QUERY_CHARACTERS],
            collection,
            user=pipeline.operator(),
            config=config,
            embedder=embedder,
        )
        leg = result.legs["dense"]
        if leg.status != "skipped" or not config.dense_depth:
            return result
    raise CannotTrain(f"“{query[:80]}” had no vector: {leg.reason}")


def best_passages(result: SearchResult, depth: int) -> Iterator[Hit]:
    """Of each document among the candidates its best passage, best first: judgments are given to
    documents."""
    seen: set[int] = set()
    for hit in result.hits[:depth]:
        if hit.document_id not in seen:
            seen.add(hit.document_id)
            yield hit
