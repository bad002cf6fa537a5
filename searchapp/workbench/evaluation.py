"""A judged folder through the product's own ingest and search: how good each stage's order is."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from django.utils import timezone

from rerank.evaluation.beir import BeirFolder
from rerank.ranking.metrics import evaluate
from searchapp.engine import local
from searchapp.engine.sockets import RerankSocket
from searchapp.ingest.inline import finish_here
from searchapp.ingest.progress import BatchProgress, batch_progress
from searchapp.ingest.receive import receive
from searchapp.models import Collection, Document, SearchConfig, UploadState
from searchapp.search import pipeline
from searchapp.search.erasing import erase_collection
from searchapp.search.result import Hit, SearchResult

from .parts import write_parts

FirstStage = Literal["lexical", "dense", "hybrid"]
# Measure of ir-measures -> its name in the report.
MEASURES = {"nDCG@10": "ndcg@10", "R@100": "recall@100", "RR@10": "mrr@10"}

_SLUG = "evaluate-"
# A collection of a run that was killed is removed by a later run after this.
_LEFTOVER = timedelta(days=1)
# In this process there is nobody to wait for; the rerank takes the time it takes.
_DEADLINE_SECONDS = 3600.0


class EvaluationFailed(RuntimeError):
    """The message is a sentence."""


@dataclass
class System:
    """One order of the documents: query id -> document id -> score, and each query's time."""

    run: dict[str, dict[str, float]] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)

    def report(self, qrels: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
        scores = evaluate(self.run, qrels, list(MEASURES))
        return {
            **{MEASURES[name]: round(value, 4) for name, value in scores.items()},
            "ms_p50": round(float(np.percentile(self.ms, 50)), 1),
            "ms_p95": round(float(np.percentile(self.ms, 95)), 1),
        }


@dataclass(frozen=True)
class Progress:
    """Hooks for whoever watches; each gets the state of its stage."""

    on_ingest: Callable[[BatchProgress], None] = lambda progress: None
    on_query: Callable[[int, int], None] = lambda done, total: None


def evaluate_folder(
    data: BeirFolder,
    *,
    language: str = "en",
    first_stage: FirstStage = "hybrid",
    rerank: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The report: `systems.<name>.{ndcg@10, recall@100, mrr@10, ms_p50, ms_p95}`, `queries`,
    `documents`, `passages`, `ingest_seconds`, `reranker`.

    Ingests into a temporary collection that is deleted whatever happens. A document's score is
    that of its best passage. Raises EvaluationFailed, RerankError.
    """
    progress = progress or Progress()
    with temporary_collection(language) as collection:
        started = time.monotonic()
        _ingest(collection, data, progress, with_vectors=first_stage != "lexical")
        seconds = time.monotonic() - started
        config = _config(collection, first_stage)
        results = _search_all(collection, config, data, rerank, progress)
        documents = Document.objects.filter(collection=collection).count()
        passages = collection.passages.count()
    return {
        "systems": {name: system.report(data.qrels) for name, system in results.systems.items()},
        "queries": len(data.queries),
        "documents": documents,
        "passages": passages,
        "ingest_seconds": round(seconds, 1),
        "reranker": results.reranker,
    }


@contextmanager
def temporary_collection(language: str) -> Iterator[Collection]:
    """A private collection, erased at the end; so are those that a killed run left behind."""
    old = timezone.now() - _LEFTOVER
    for leftover in Collection.objects.filter(slug__startswith=_SLUG, created_at__lt=old):
        erase_collection(leftover)
    collection = Collection.objects.create_with_owner(
        slug=f"{_SLUG}{uuid.uuid4().hex[:12]}", name="Evaluation", language=language
    )
    try:
        yield collection
    finally:
        collection.refresh_from_db()
        erase_collection(collection)


def _ingest(
    collection: Collection, data: BeirFolder, progress: Progress, with_vectors: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="podium-evaluate-") as folder:
        parts = write_parts(data.corpus, Path(folder))
        batch = receive(collection, parts, pipeline.operator(), enqueue=False)
    finish_here(batch, lambda: progress.on_ingest(batch_progress(batch)), with_vectors=with_vectors)
    failed = batch.uploads.filter(state=UploadState.FAILED).first()
    if failed is not None:
        raise EvaluationFailed(f"The corpus could not be read: {failed.message}")
    collection.refresh_from_db()


def _config(collection: Collection, first_stage: FirstStage) -> SearchConfig:
    """The collection's first config with the other leg turned off; not saved."""
    config = pipeline.active_config(collection)
    if first_stage == "lexical":
        config.dense_depth = 0
    elif first_stage == "dense":
        config.lexical_depth = 0
    return config


class _Results:
    def __init__(self, first_stage_names: list[str], rerank: bool) -> None:
        names = [*first_stage_names, *(["reranked"] if rerank else [])]
        self.systems = {name: System() for name in names}
        self.reranker = ""

    def add(self, query: str, result: SearchResult, corpus_ids: Mapping[int, str]) -> None:
        timings = result.timings_ms
        leg_ms = {
            "lexical": timings.get("lexical", 0.0),
            "dense": timings.get("embed", 0.0) + timings.get("dense", 0.0),
            "fused": timings.get("first_stage", 0.0),
            "reranked": timings.get("total", 0.0),
        }
        for name, system in self.systems.items():
            system.run[query] = _document_scores(result.hits, name, corpus_ids)
            system.ms.append(leg_ms[name])


def _search_all(
    collection: Collection,
    config: SearchConfig,
    data: BeirFolder,
    rerank: bool,
    progress: Progress,
) -> _Results:
    names = ["lexical"] * bool(config.lexical_depth) + ["dense"] * bool(config.dense_depth)
    results = _Results([*names, "fused"] if len(names) == 2 else names, rerank)
    embedder = local.embedder()
    reranker: RerankSocket | None = local.reranker() if rerank else None
    corpus_ids = _corpus_ids(collection)
    if config.dense_depth:
        local.warm_up_embedder()
    if rerank:
        results.reranker = local.warm_up_reranker().name
    for done, (query, text) in enumerate(data.queries.items(), start=1):
        result = pipeline.search(
            text[: pipeline.MAX_QUERY_CHARACTERS],
            collection,
            user=pipeline.operator(),
            config=config,
            embedder=embedder,
            reranker=reranker,
            deadline=time.time() + _DEADLINE_SECONDS,
        )
        _check(result, rerank, bool(config.dense_depth))
        results.add(query, result, corpus_ids)
        progress.on_query(done, len(data.queries))
    return results


def _check(result: SearchResult, rerank: bool, dense: bool) -> None:
    """A figure measured with a stage missing would be a figure of something else."""
    leg = result.legs["dense"]
    if dense and leg.status == "skipped":
        raise EvaluationFailed(f"The query {result.query!r} had no vector: {leg.reason}")
    if rerank and result.hits and result.rerank.status != "ok":
        raise EvaluationFailed(
            f"The query {result.query!r} was not reranked: {result.rerank.reason}"
        )


def _corpus_ids(collection: Collection) -> dict[int, str]:
    """document id -> the corpus's own id."""
    rows = Document.objects.filter(collection=collection).values_list("pk", "metadata")
    return {pk: str(metadata["id"]) for pk, metadata in rows}


def _document_scores(
    hits: tuple[Hit, ...], system: str, corpus_ids: Mapping[int, str]
) -> dict[str, float]:
    """corpus id -> the score of the document's best passage."""
    scores: dict[str, float] = {}
    for hit in hits:
        score = _score(hit, system)
        if score is not None:
            document = corpus_ids[hit.document_id]
            scores[document] = max(scores.get(document, score), score)
    return scores


def _score(hit: Hit, system: str) -> float | None:
    if system == "lexical":
        return hit.lexical_score
    if system == "dense":
        return hit.dense_score
    # Ranks settle ties the way the page shows them.
    return -float(hit.first_stage_rank if system == "fused" else hit.rank)
