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

from rerank.errors import ModelNotFound, RerankError
from rerank.inference.models import UNTRAINED, canonical_name
from rerank.types import Embedder, FloatArray, ModelCard, Reranker, RerankRequest, RerankScores
from searchapp.engine.sockets import (
    EmbedOutcome,
    EmbedSocket,
    RerankJob,
    RerankOutcome,
    RerankSocket,
)
from searchapp.models import Passage
from searchapp.models.corpus import compose_indexed_text

logger = logging.getLogger(__name__)

_models: dict[tuple[str, str], Any] = {}
_loading = threading.Lock()
# One job at a time owns the model: two at once would halve each other's speed and finish later.
_scoring = threading.Lock()


def reranker() -> RerankSocket:
    return LocalReranker()


def embedder() -> EmbedSocket:
    return LocalEmbedder()


class LocalReranker:
    """`submit` keeps the job, `collect` does it."""

    def __init__(self) -> None:
        self._jobs: dict[str, RerankJob] = {}

    def submit(self, job: RerankJob) -> str:
        ticket = f"local-{id(job)}-{len(self._jobs)}"
        self._jobs[ticket] = job
        return ticket

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        job = self._jobs.pop(ticket, None)
        if job is None:
            return RerankOutcome("unavailable", "This search's rerank was collected before.")
        return rerank(replace(job, deadline=deadline))


class LocalEmbedder:
    def embed_query(self, text: str, model: str, deadline: float) -> EmbedOutcome:
        return embed_query(text, model)


def rerank(job: RerankJob) -> RerankOutcome:
    """Scores the job's passages. Never raises: every failure is an outcome with its sentence."""
    try:
        model = load_reranker(job.model)
        texts = passage_texts(job.passage_ids)
        request = RerankRequest(job.query, texts, job.instruction or None, job.priors)
        with _scoring:
            if job.seconds_left <= 0:
                return RerankOutcome("late", "The reranker came to this search too late.")
            scores = model.score(request)
        return _outcome(scores, model.card)
    except RerankError as error:
        return RerankOutcome("unavailable", str(error))
    except Exception as error:
        logger.exception("a rerank of %d passages failed", len(job.passage_ids))
        return RerankOutcome("unavailable", f"The reranker failed ({type(error).__name__}).")


def _outcome(scores: RerankScores, card: ModelCard) -> RerankOutcome:
    return RerankOutcome(
        "ok",
        logits=[float(logit) for logit in scores.logits],
        relevance=[float(relevance) for relevance in scores.relevance],
        scale=scores.scale,
        model=card.name,
        device=card.device,
        pairs=len(scores.logits),
        truncated=scores.truncated,
        inference_ms=scores.tokenize_ms + scores.inference_ms,
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


def embed_documents(texts: Sequence[str], model: str) -> FloatArray:
    """Unit vectors, shape (n, dimension), prefix rules left to the caller. Raises RerankError."""
    return load_embedder(model).embed_documents(texts)


def passage_texts(passage_ids: Sequence[int]) -> list[str]:
    """What is reranked of each passage, in the order asked; "" for one deleted meanwhile."""
    rows = Passage.objects.filter(pk__in=passage_ids).values_list(
        "pk", "document__title", "heading_path", "text"
    )
    texts = {pk: compose_indexed_text(title, headings, text) for pk, title, headings, text in rows}
    return [texts.get(passage, "") for passage in passage_ids]


def reranker_name(model: str) -> str:
    """The name to load for a search config's `model`.

    Raises ModelNotFound for models this installation does not offer: loading whatever a config
    names would let its editor fill the worker's memory.
    """
    if model == "default":
        return str(settings.RERANK_MODEL)
    if model in {UNTRAINED, settings.RERANK_MODEL}:
        return model
    raise ModelNotFound(
        f"The reranker {model!r} is not offered here; set RERANK_MODEL to it and restart."
    )


def load_reranker(model: str = "default") -> Reranker:
    """The model, built once. Raises RerankError."""

    def build(name: str) -> Reranker:
        from rerank.inference import loading

        return loading.load_reranker(name, settings.DEVICE)

    loaded: Reranker = _built("reranker", reranker_name(model), build)
    return loaded


def load_embedder(model: str = "") -> Embedder:
    """The model, built once. Raises RerankError."""

    def build(name: str) -> Embedder:
        from rerank.inference import loading

        return loading.load_embedder(name, settings.DEVICE)

    name = canonical_name(model or settings.EMBED_MODEL)
    loaded: Embedder = _built("embedder", name, build)
    return loaded


def warm_up_reranker() -> ModelCard:
    """Loads the default reranker and scores once, so that the first search finds it warm."""
    model = load_reranker()
    model.score(RerankRequest("warm-up", ["A first text.", "A second text."], None, [1.0, 0.0]))
    return model.card


def warm_up_embedder() -> ModelCard:
    model = load_embedder()
    model.embed_queries(["warm-up"])
    return model.card


def _built(kind: str, name: str, build: Callable[[str], Any]) -> Any:
    with _loading:
        if (kind, name) not in _models:
            _models[kind, name] = build(name)
        return _models[kind, name]
