"""Both sockets answered in this process. The only door to `rerank.inference`: its imports stand
inside the functions, because they bring torch along and this module is also read without it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import connection

from rerank.errors import BadInput, BadRecipe, Cancelled, ModelNotFound, Overloaded, RerankError
from rerank.inference.models import UNTRAINED, canonical_name
from rerank.inference.score_cache import ScoreCache
from rerank.inference.scorer import is_batched, open_scorer
from rerank.inference.scoring import TOO_LATE, Scored, Scoring
from rerank.types import Embedder, FloatArray, ModelCard, Reranker, RerankRequest
from searchapp.engine import checkpoints
from searchapp.engine.sockets import (
    EmbedOutcome,
    EmbedSocket,
    RerankCode,
    RerankJob,
    RerankOutcome,
    RerankSocket,
    TextsJob,
    VectorsOutcome,
)
from searchapp.models import Passage
from searchapp.models.corpus import compose_indexed_text

logger = logging.getLogger(__name__)

_models: dict[tuple[str, str], Any] = {}
_loading = threading.Lock()
# Names of models that failed their checks, and the sentence that says which.
_refused: dict[str, str] = {}
# Of this process; a measurement or a test finds none.
_score_cache: ScoreCache | None = None


class ModelRefused(RerankError):
    """The model failed a check and does not serve."""


def reranker() -> RerankSocket:
    return LocalReranker()


def embedder() -> EmbedSocket:
    return LocalEmbedder()


class LocalReranker:
    """`submit` keeps the job, `collect` does it."""

    def __init__(self) -> None:
        self._jobs: dict[str, RerankJob | TextsJob] = {}

    def submit(self, job: RerankJob | TextsJob) -> str:
        ticket = f"local-{id(job)}-{len(self._jobs)}"
        self._jobs[ticket] = job
        return ticket

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        job = self._jobs.pop(ticket, None)
        if job is None:
            reason = "This search's rerank was collected before."
            return RerankOutcome("unavailable", reason, code="cancelled")
        return rerank(replace(job, deadline=deadline))

    def cancel(self, ticket: str) -> None:
        self._jobs.pop(ticket, None)


class LocalEmbedder:
    def embed_query(self, text: str, model: str, deadline: float) -> EmbedOutcome:
        return embed_query(text, model)


def rerank(job: RerankJob | TextsJob, cancelled: Callable[[], bool] | None = None) -> RerankOutcome:
    """Scores the job's texts together with those of other threads. Never raises: every failure
    is an outcome with its sentence. `cancelled` must answer at once."""
    try:
        # Texts that came from outside belong to no collection, so no checkpoint reads them.
        scoring = scorer(job.model, job.collection_id if isinstance(job, RerankJob) else 0)
        if job.seconds_left <= 0:
            raise Cancelled(TOO_LATE)
        request = _request(job)
        return _outcome(scoring.scored(request, job.deadline, cancelled), scoring.card)
    except Cancelled as error:
        if job.seconds_left <= 0:
            return RerankOutcome("late", TOO_LATE, code="late")
        return RerankOutcome("unavailable", str(error), code="cancelled")
    except RerankError as error:
        return RerankOutcome("unavailable", str(error), code=_code(error))
    except Exception as error:
        logger.exception("a rerank failed")
        reason = f"The reranker failed ({type(error).__name__})."
        return RerankOutcome("unavailable", reason, code="failed")


def _request(job: RerankJob | TextsJob) -> RerankRequest:
    if isinstance(job, TextsJob):
        return RerankRequest(job.query, job.texts, job.instruction or None)
    texts = passage_texts(job.passage_ids)
    return RerankRequest(job.query, texts, job.instruction or None, job.priors)


def _code(error: RerankError) -> RerankCode:
    if isinstance(error, Overloaded):
        return "overloaded"
    if isinstance(error, BadInput):
        return "bad-input"
    missing = isinstance(error, ModelNotFound | ModelRefused | BadRecipe)
    return "no-model" if missing else "failed"


def _outcome(scored: Scored, card: ModelCard) -> RerankOutcome:
    scores = scored.scores
    return RerankOutcome(
        "ok",
        logits=[float(logit) for logit in scores.logits],
        relevance=[float(relevance) for relevance in scores.relevance],
        scale=scores.scale,
        model=card.name,
        device=card.device,
        pairs=len(scores.logits),
        truncated=scores.truncated,
        queue_ms=scored.queue_ms,
        inference_ms=scores.inference_ms,
        tokenize_ms=scores.tokenize_ms,
        cached=scored.cached,
        tokens=scores.tokens,
        notes=list(scores.notes),
    )


def embed_query(text: str, model: str) -> EmbedOutcome:
    """The query's unit vector. Never raises."""
    started = time.perf_counter()
    try:
        vector = load_embedder(model).embed_queries([text])[0]
    except RerankError as error:
        return EmbedOutcome(None, str(error))
    except Exception as error:
        logger.exception("embedding a query failed")
        return EmbedOutcome(None, f"The embedder failed ({type(error).__name__}).")
    return EmbedOutcome(vector, "", (time.perf_counter() - started) * 1000)


def embed_texts(texts: Sequence[str], model: str, *, as_queries: bool) -> VectorsOutcome:
    """Of texts that are no passages of ours. Never raises."""
    started = time.perf_counter()
    try:
        embedder = load_embedder(embedder_name(model))
        embed = embedder.embed_queries if as_queries else embedder.embed_documents
        vectors = embed(texts)
    except RerankError as error:
        return VectorsOutcome(None, str(error), _code(error))
    except Exception as error:
        logger.exception("embedding %d texts failed", len(texts))
        return VectorsOutcome(None, f"The embedder failed ({type(error).__name__}).", "failed")
    return VectorsOutcome(vectors, elapsed_ms=(time.perf_counter() - started) * 1000)


def embed_documents(texts: Sequence[str], model: str) -> FloatArray:
    """Unit vectors, shape (n, dimension), prefix rules left to the caller. Raises RerankError."""
    return load_embedder(model).embed_documents(texts)


def passage_texts(passage_ids: Sequence[int]) -> list[str]:
    """What is reranked of each passage, in the order asked; "" for one deleted meanwhile."""
    rows = Passage.objects.filter(pk__in=passage_ids).values_list(
        "pk", "document__title", "heading_path", "text"
    )
    texts = {pk: compose_indexed_text(title, headings, text) for pk, title, headings, text in rows}
    if not connection.in_atomic_block:
        # The job now waits for the model; others need the pool's connection meanwhile.
        connection.close()
    return [texts.get(passage, "") for passage in passage_ids]


def reranker_name(model: str, collection_id: int = 0) -> str:
    """The name to load for a search config's `model`.

    Raises ModelNotFound for models this installation does not offer: loading whatever a config
    names would let its editor fill the worker's memory. A checkpoint is offered to its own
    collection only.
    """
    if checkpoints.is_checkpoint(model):
        return checkpoints.checked(model, collection_id)
    if model == "default":
        return str(settings.RERANK_MODEL) or UNTRAINED
    if model in {UNTRAINED, settings.RERANK_MODEL}:
        return model
    raise ModelNotFound(
        f"The reranker {model!r} is not offered here; set RERANK_MODEL to it and restart."
    )


def embedder_name(model: str) -> str:
    """The name to load for a caller's `model`. Raises ModelNotFound for what is not offered."""
    name = canonical_name(settings.EMBED_MODEL)
    if model in {"", "default", settings.EMBED_MODEL, name}:
        return name
    raise ModelNotFound(f"The embedder {model!r} is not offered here; “default” is.")


def load_reranker(model: str = "default", collection_id: int = 0) -> Reranker:
    """The model, built once. Raises RerankError."""
    name = reranker_name(model, collection_id)
    loaded: Reranker = _built("reranker", name, lambda name: _load(name, settings.RERANK_DTYPE))
    return loaded


def load_reference(name: str) -> Reranker:
    """The model of that name in float32, to hold the one that serves against; not kept. Raises
    RerankError."""
    return _load(name, "float32")


def _load(name: str, dtype_name: str) -> Reranker:
    from rerank.inference import loading

    def load(found: str) -> Reranker:
        return loading.load_reranker(found, settings.DEVICE, dtype_name)

    return checkpoints.load(name, load) if checkpoints.is_checkpoint(name) else load(name)


def load_embedder(model: str = "") -> Embedder:
    """The model, built once. Raises RerankError."""

    def build(name: str) -> Embedder:
        from rerank.inference import loading

        return loading.load_embedder(name, settings.DEVICE)

    name = canonical_name(model or settings.EMBED_MODEL)
    loaded: Embedder = _built("embedder", name, build)
    return loaded


def scorer(model: str = "default", collection_id: int = 0) -> Scoring:
    """What scores with the model for all threads of this process. Raises RerankError."""
    name = reranker_name(model, collection_id)
    if name in _refused:
        raise ModelRefused(_refused[name])
    loaded = load_reranker(model, collection_id)
    made: Scoring = _built("scorer", name, lambda _: open_scorer(loaded, cache=_score_cache))
    return made


def refuse(model: str, reason: str) -> None:
    """From now on every job for the model is answered with the reason."""
    _refused[model if checkpoints.is_checkpoint(model) else reranker_name(model)] = reason


def keep_scores(cache: ScoreCache | None) -> None:
    """For scorers made from now on."""
    global _score_cache
    _score_cache = cache


def scorer_figures() -> dict[str, float]:
    """Of all scorers of this process together; empty when there is none."""
    every = [each.stats() for (kind, _), each in list(_models.items()) if kind == "scorer"]
    if not every:
        return {}
    return {
        "waiting_requests": sum(stats.waiting_requests for stats in every),
        "waiting_rows": sum(stats.waiting_rows for stats in every),
        "waiting_tokens": sum(stats.waiting_tokens for stats in every),
        "tokens_per_second": sum(stats.tokens_per_second for stats in every),
        "rows_per_batch": max(stats.rows_per_batch for stats in every),
    }


def warm_up_reranker() -> ModelCard:
    """Loads the default reranker and scores a batch of usual sizes, so that the first search finds
    it warm; what is not ours to warm is left alone, for it may cost money. Raises RerankError."""
    model = load_reranker()
    if not is_batched(model):
        return model.card
    texts = [" ".join(["warm-up"] * words) for words in (5, 20, 40, 60, 80, 120, 160, 200)] * 2
    model.score(RerankRequest("What warms a model up?", texts, None, [0.5] * len(texts)))
    return model.card


def warm_up_embedder() -> ModelCard:
    model = load_embedder()
    model.embed_queries(["warm-up"])
    return model.card


def _built(kind: str, name: str, build: Callable[[str], Any]) -> Any:
    with _loading:
        # Put last again: the first ones are those longest unused.
        made = _models.pop((kind, name), None)
        if made is None:
            made = build(name)
        _models[kind, name] = made
        if checkpoints.is_checkpoint(name):
            _forget_unused_checkpoints(kind)
        return made


def _forget_unused_checkpoints(kind: str) -> None:
    loaded = [key for key in _models if key[0] == kind and checkpoints.is_checkpoint(key[1])]
    for key in loaded[: -checkpoints.MOST_LOADED]:
        gone = _models.pop(key)
        if kind == "scorer":
            gone.drain(0)
            _models.pop(("reranker", key[1]), None)
