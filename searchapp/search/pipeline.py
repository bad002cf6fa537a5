"""One search: first stage, fusion, rerank. The page, the command and the tests all call this."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

from django.conf import settings
from django.db import ProgrammingError, connection

from rerank.errors import RerankError
from rerank.ranking.analysis import query_terms
from rerank.ranking.bm25 import Variant
from rerank.ranking.fusion import fuse_reciprocal_ranks, fuse_weighted
from searchapp.engine.sockets import (
    EmbedOutcome,
    EmbedSocket,
    RerankJob,
    RerankOutcome,
    RerankSocket,
)
from searchapp.models import Collection, Generation, SearchConfig
from searchapp.models.configs import Fusion
from searchapp.models.corpus import AnyUser

from .access import operator, snapshot, visible_sql
from .calibrated import fitted_for
from .configs import rendered_instruction
from .filters import Filters, read_filters
from .lexical import lexical_candidates
from .result import Hit, Leg, SearchResult
from .vectors import dense_candidates

__all__ = ["BadQuery", "checked_query", "finish", "operator", "search", "start"]

MAX_QUERY_CHARACTERS = 4000
# Requests for query vectors under way at once; each only waits for a worker.
EMBED_THREADS = 16

Candidates = Sequence[tuple[int, float]]

_waiting: ThreadPoolExecutor | None = None
_waiting_lock = threading.Lock()


class BadQuery(ValueError):
    """A query that cannot be searched; the message is a sentence for whoever typed it."""


def search(
    query: str,
    collection: Collection,
    *,
    user: AnyUser,
    config: SearchConfig | None = None,
    instruction: str | None = None,
    filters: Mapping[str, Any] | Filters | None = None,
    embedder: EmbedSocket | None = None,
    reranker: RerankSocket | None = None,
    deadline: float | None = None,
) -> SearchResult:
    """`start`, then waits for the rerank until the deadline at most, then `finish`."""
    deadline = deadline or _default_deadline()
    config = config or active_config(collection)
    result = start(
        query,
        collection,
        user=user,
        config=config,
        instruction=instruction,
        filters=filters,
        embedder=embedder,
        reranker=reranker,
        deadline=deadline,
    )
    if reranker is None or result.rerank.status != "pending":
        return result
    asked = time.perf_counter()
    outcome = reranker.collect(result.ticket, deadline)
    return finish(result, outcome, config, rerank_ms=1000 * (time.perf_counter() - asked))


def start(
    query: str,
    collection: Collection,
    *,
    user: AnyUser,
    config: SearchConfig | None = None,
    instruction: str | None = None,
    filters: Mapping[str, Any] | Filters | None = None,
    embedder: EmbedSocket | None = None,
    reranker: RerankSocket | None = None,
    deadline: float | None = None,
) -> SearchResult:
    """The first stage, with the rerank already under way (status pending, `ticket` set).

    `config` None: the collection's active one. `instruction` None: the config's own; a text, also
    the empty one, replaces it. Without an embedder the dense leg is skipped, without a reranker or
    at depth 0 the rerank is off. `deadline`: seconds since the epoch. A user who may not see the
    collection finds nothing. Raises BadQuery and BadFilter, never for a missing worker.
    """
    clock = _Clock()
    query = checked_query(query)
    config = config or active_config(collection)
    chosen = read_filters(filters)
    rendered = rendered_instruction(config, instruction)
    generation = collection.active_generation if config.dense_depth else None
    vector = _ask_for_vector(query, generation, embedder)

    def first_stage() -> tuple[tuple[Hit, ...], dict[str, Leg]]:
        with snapshot():
            with clock.stage("lexical"):
                words, by_words = _lexical_leg(collection, user, query, config, chosen)
            by_words = replace(by_words, elapsed_ms=clock.timings["lexical"])
            near, by_meaning = _dense_leg(
                collection, generation, user, vector, config, chosen, clock
            )
            with clock.stage("fusion"):
                hits = _fused_hits(collection, user, words, near, config)
        return hits, {"lexical": by_words, "dense": by_meaning}

    try:
        hits, legs = first_stage()
    except ProgrammingError:  # dropped by whoever switched generations or erased the collection
        generation, vector = None, None
        hits, legs = first_stage()
        legs["dense"] = Leg("skipped", reason="The collection's vectors were replaced meanwhile.")
    clock.mark("first_stage")
    result = SearchResult(
        query=query,
        collection_id=collection.pk,
        config_id=config.pk,
        config_version=config.version,
        instruction=rendered,
        hits=hits,
        legs=legs,
        rerank=RerankOutcome("off", "Reranking is off."),
        timings_ms=clock.timings,
        filters=chosen.as_json(),
    )
    return _submit(result, config, reranker, deadline or _default_deadline(), clock)


def finish(
    result: SearchResult,
    outcome: RerankOutcome,
    config: SearchConfig | None = None,
    *,
    rerank_ms: float = 0.0,
) -> SearchResult:
    """The result in reranked order, or unchanged in first-stage order when the outcome is not ok.

    Reranked hits sort by (logit descending, first-stage rank); those beyond the depth follow in
    first-stage order. A threshold marks hits below it as filtered out, and those without relevance;
    it acts on the calibrated number where the collection has one for the model that answered.
    `rerank_ms`: from submission to answer, where the caller measured it.
    """
    config = config or SearchConfig.objects.get(pk=result.config_id)
    before = result.first_stage_order()
    count = len(outcome.logits)
    if outcome.status == "ok" and not 0 < count <= len(before):
        outcome = replace(
            outcome, status="unavailable", reason="The reranker's answer does not fit the question."
        )
    timings = {**result.timings_ms}
    timings["rerank"] = round(max(rerank_ms, outcome.elapsed_ms), 3)
    timings["total"] = round(timings.get("first_stage", 0.0) + timings["rerank"], 3)
    kept = replace(outcome, logits=(), relevance=())
    if outcome.status != "ok":
        return replace(result, hits=before, rerank=kept, timings_ms=timings, ticket="")
    fitted = fitted_for(result.collection_id, outcome.model)
    calibrated = fitted.calibrated(outcome.logits, outcome.relevance)
    scored = [
        replace(hit, logit=float(logit), relevance=float(relevance), calibrated=probability)
        for hit, logit, relevance, probability in zip(
            before, outcome.logits, outcome.relevance, calibrated, strict=False
        )
    ]
    scored.sort(key=lambda hit: (-cast(float, hit.logit), hit.first_stage_rank, hit.passage_id))
    ordered = [*scored, *before[count:]]
    hits = tuple(
        replace(hit, rank=rank, filtered_out=_below(hit, config.threshold))
        for rank, hit in enumerate(ordered, start=1)
    )
    return replace(
        result,
        hits=hits,
        rerank=kept,
        timings_ms=timings,
        ticket="",
        confidence=fitted.sure(outcome.logits),
    )


def checked_query(query: str) -> str:
    """The query without surrounding space. Raises BadQuery."""
    cleaned = query.replace("\0", " ").strip()
    if not cleaned:
        raise BadQuery("Type a query to search for.")
    if len(cleaned) > MAX_QUERY_CHARACTERS:
        raise BadQuery(
            f"The query has {len(cleaned):,} characters; {MAX_QUERY_CHARACTERS:,} are the most."
        )
    return cleaned


def active_config(collection: Collection) -> SearchConfig:
    """Raises BadQuery for a collection without one."""
    if collection.active_config is None:
        raise BadQuery("The collection has no active search config.")
    return collection.active_config


# --- the legs ----------------------------------------------------------------------------------


def _lexical_leg(
    collection: Collection, user: AnyUser, query: str, config: SearchConfig, filters: Filters
) -> tuple[Candidates, Leg]:
    if not config.lexical_depth:
        return [], Leg("skipped", reason="The search config turns words off.")
    wanted = query_terms(query, collection.language)
    if not wanted:
        return [], Leg("skipped", reason="The query holds no words.")
    found = lexical_candidates(
        collection,
        user,
        wanted,
        config.lexical_depth,
        variant=cast(Variant, config.bm25_variant),
        k1=config.bm25_k1,
        b=config.bm25_b,
        filters=filters,
    )
    return found, Leg("ok" if found else "empty", count=len(found))


def _ask_for_vector(
    query: str, generation: Generation | None, embedder: EmbedSocket | None
) -> Future[EmbedOutcome] | None:
    """Asks in another thread, so that the lexical leg runs meanwhile."""
    if generation is None or embedder is None:
        return None
    deadline = time.time() + settings.EMBED_DEADLINE_MS / 1000
    return _threads().submit(embedder.embed_query, query, generation.model, deadline)


def _dense_leg(
    collection: Collection,
    generation: Generation | None,
    user: AnyUser,
    asked: Future[EmbedOutcome] | None,
    config: SearchConfig,
    filters: Filters,
    clock: _Clock,
) -> tuple[Candidates, Leg]:
    if not config.dense_depth:
        return [], Leg("skipped", reason="The search config turns meaning off.")
    if generation is None:
        return [], Leg("skipped", reason="The collection has no vectors yet.")
    if asked is None:
        return [], Leg("skipped", reason="This search asked for words only.")
    outcome = _vector(asked)
    clock.timings["embed"] = round(outcome.elapsed_ms, 3)
    if outcome.vector is None:
        reason = outcome.reason or "The query's vector could not be computed."
        return [], Leg("skipped", elapsed_ms=outcome.elapsed_ms, reason=reason)
    if len(outcome.vector) != generation.dimension:
        return [], Leg("skipped", reason="The embedder is not the one of this collection.")
    with clock.stage("dense"):
        found = dense_candidates(
            collection, generation, user, outcome.vector, config.dense_depth, filters=filters
        )
    elapsed = clock.timings["dense"]
    return found, Leg("ok" if found else "empty", count=len(found), elapsed_ms=elapsed)


def _vector(asked: Future[EmbedOutcome]) -> EmbedOutcome:
    """The embedder keeps its own deadline; the margin here is for one that does not."""
    try:
        return asked.result(timeout=settings.EMBED_DEADLINE_MS / 1000 + 1)
    except TimeoutError:
        return EmbedOutcome(None, "The query's vector did not arrive in time.")
    except RerankError as error:
        return EmbedOutcome(None, str(error))


def _fused_hits(
    collection: Collection,
    user: AnyUser,
    lexical: Candidates,
    dense: Candidates,
    config: SearchConfig,
) -> tuple[Hit, ...]:
    documents = _documents_of(collection, user, {each for each, _ in [*lexical, *dense]})
    # A passage deleted since its leg ran has no document left.
    lexical_scores = {each: score for each, score in lexical if each in documents}
    dense_scores = {each: score for each, score in dense if each in documents}
    if config.fusion == Fusion.RRF:
        fused = fuse_reciprocal_ranks([list(lexical_scores), list(dense_scores)], config.rrf_k)
    else:
        fused = fuse_weighted(lexical_scores, dense_scores, config.dense_weight)
    lexical_ranks = {each: rank for rank, each in enumerate(lexical_scores, start=1)}
    dense_ranks = {each: rank for rank, each in enumerate(dense_scores, start=1)}
    return tuple(
        Hit(
            passage_id=each,
            document_id=documents[each],
            rank=rank,
            first_stage_rank=rank,
            fused_score=score,
            lexical_rank=lexical_ranks.get(each),
            lexical_score=lexical_scores.get(each),
            dense_rank=dense_ranks.get(each),
            dense_score=dense_scores.get(each),
        )
        for rank, (each, score) in enumerate(fused.items(), start=1)
    )


def _documents_of(collection: Collection, user: AnyUser, passage_ids: set[int]) -> dict[int, int]:
    """passage id -> document id, of those that exist in a collection the user may see."""
    visible, params = visible_sql(collection, user)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, document_id FROM searchapp_passage "
            f"WHERE id = ANY(%s) AND collection_id IN ({visible})",
            [sorted(passage_ids), *params],
        )
        return dict(cursor.fetchall())


# --- the rerank --------------------------------------------------------------------------------


def _submit(
    result: SearchResult,
    config: SearchConfig,
    reranker: RerankSocket | None,
    deadline: float,
    clock: _Clock,
) -> SearchResult:
    top = result.hits[: config.rerank_depth]
    if reranker is None or not top:
        reason = "Reranking is off." if result.hits else "There was nothing to rerank."
        clock.mark("total")
        return replace(result, rerank=RerankOutcome("off", reason), timings_ms=clock.timings)
    job = RerankJob(
        query=result.query,
        instruction=result.instruction,
        passage_ids=[hit.passage_id for hit in top],
        priors=[hit.fused_score for hit in top],
        deadline=deadline,
        model=config.model,
        collection_id=result.collection_id,
    )
    ticket = reranker.submit(job)
    clock.mark("total")
    return replace(
        result,
        rerank=RerankOutcome("pending", pairs=len(top)),
        ticket=ticket,
        timings_ms=clock.timings,
    )


def _below(hit: Hit, threshold: float | None) -> str:
    if threshold is None:
        return ""
    relevance = hit.relevance_shown
    if relevance is None:
        return "not reranked, so without a relevance to hold against the threshold"
    return f"below the threshold {threshold:g}" if relevance < threshold else ""


# -----------------------------------------------------------------------------------------------


class _Clock:
    """Milliseconds of each stage since the search began."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._began = time.perf_counter()

    def mark(self, name: str) -> None:
        self.timings[name] = round(1000 * (time.perf_counter() - self._began), 3)

    def stage(self, name: str) -> _Stage:
        return _Stage(self.timings, name)


class _Stage:
    def __init__(self, timings: dict[str, float], name: str) -> None:
        self._timings, self._name = timings, name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timings[self._name] = round(1000 * (time.perf_counter() - self._began), 3)


def _threads() -> ThreadPoolExecutor:
    """Made on first use: a server may fork after importing this."""
    global _waiting
    with _waiting_lock:
        if _waiting is None:
            _waiting = ThreadPoolExecutor(EMBED_THREADS, thread_name_prefix="query-vector")
        return _waiting


def _default_deadline() -> float:
    return time.time() + settings.RERANK_DEADLINE_MS / 1000
