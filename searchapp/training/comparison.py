"""Whether a checkpoint ranks better: the held-out queries in the order of the first stage, of the
active version's reranker and of the checkpoint, from the same candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from django.utils import timezone

from rerank.ranking.metrics import per_query
from rerank.ranking.significance import compare as significance
from searchapp.engine import local
from searchapp.engine.sockets import EmbedSocket, RerankJob, RerankOutcome
from searchapp.models import Checkpoint, Collection, SearchConfig
from searchapp.models import Document as DocumentRow
from searchapp.search import configs, pipeline
from searchapp.search.result import SearchResult

from .asked import CannotTrain, Stopped
from .counting import GradedQuery, graded_queries
from .searching import best_passages, depth_of, first_stage

HYBRID, ACTIVE, TRAINED = "hybrid", "active", "trained"
MEASURES = {"nDCG@10": "ndcg", "RR@10": "mrr"}
_LONG_SECONDS = 3600.0
# Apart by less than this, two rankings of a query are alike.
_ALIKE = 1e-6

Progress = Callable[[int, int], None]
# A job, scored in this process: tests hand in one of their own.
Rerank = Callable[[RerankJob], RerankOutcome]


@dataclass
class _System:
    """query -> document -> minus its place; milliseconds of each rerank; what answered."""

    run: dict[str, dict[str, float]] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)
    model: str = ""


def compare(
    checkpoint: Checkpoint,
    keys: Iterable[str],
    embedder: EmbedSocket,
    *,
    judged_only: bool,
    rerank: Rerank = local.rerank,
    on_progress: Progress = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """`systems.<hybrid|active|trained>.{model, ndcg, mrr, ms_p50}`; `differences.<active|hybrid>`:
    the checkpoint's nDCG@10 minus the other's, as rerank.ranking.significance compares them, with
    counts of the queries that got better and worse.

    `judged_only`: documents without a judgment are taken out of every ranking, because nobody said
    what they are worth; else they count as not relevant. Raises CannotTrain, Stopped.
    """
    collection = checkpoint.collection
    config = pipeline.active_config(collection)
    wanted = set(keys)
    queries = [each for each in graded_queries(collection) if each.key in wanted]
    queries = [each for each in queries if each.has_relevant]
    if not queries:
        raise CannotTrain(
            "None of the held-out queries has judgments any more, so nothing can be compared. "
            "Train again."
        )
    work = _Comparison(checkpoint, collection, config, embedder, rerank, judged_only)
    for done, query in enumerate(queries):
        if stopped():
            raise Stopped
        on_progress(done, len(queries))
        work.add(query)
    on_progress(len(queries), len(queries))
    return work.report(queries)


class _Comparison:
    def __init__(
        self,
        checkpoint: Checkpoint,
        collection: Collection,
        config: SearchConfig,
        embedder: EmbedSocket,
        rerank: Rerank,
        judged_only: bool,
    ) -> None:
        self.checkpoint, self.collection, self.config = checkpoint, collection, config
        self.embedder, self.rerank, self.judged_only = embedder, rerank, judged_only
        names = [HYBRID, *([ACTIVE] if config.rerank_depth else []), TRAINED]
        self.systems = {name: _System() for name in names}
        rows = DocumentRow.objects.filter(collection=collection)
        self.paths: dict[int, str] = dict(rows.values_list("pk", "path"))

    def add(self, query: GradedQuery) -> None:
        result = first_stage(query.text, self.collection, self.config, self.embedder)
        self._keep(HYBRID, query, result)
        models = {ACTIVE: self.config.model, TRAINED: self.checkpoint.model_name}
        for name, model in models.items():
            if name in self.systems:
                self._keep(name, query, self._reranked(name, result, model))

    def _reranked(self, name: str, result: SearchResult, model: str) -> SearchResult:
        top = result.hits[: depth_of(self.config)]
        if not top:
            return result
        outcome = self.rerank(
            RerankJob(
                query=result.query,
                instruction=result.instruction,
                passage_ids=[hit.passage_id for hit in top],
                priors=[hit.fused_score for hit in top],
                deadline=time.time() + _LONG_SECONDS,
                model=model,
                collection_id=self.collection.pk,
            )
        )
        if outcome.status != "ok":
            which = "the checkpoint" if name == TRAINED else "the active reranker"
            raise CannotTrain(
                f"“{result.query[:80]}” could not be reranked by {which}, so nothing was compared: "
                f"{outcome.reason}"
            )
        system = self.systems[name]
        system.ms.append(outcome.tokenize_ms + outcome.inference_ms)
        system.model = outcome.model
        return pipeline.finish(result, outcome, self.config)

    def _keep(self, name: str, query: GradedQuery, result: SearchResult) -> None:
        """A document stands where its best passage does."""
        places: dict[str, float] = {}
        for hit in best_passages(result, len(result.hits)):
            path = self.paths.get(hit.document_id, "")
            if path and (not self.judged_only or path in query.grades):
                places.setdefault(path, -float(hit.rank))
        self.systems[name].run[query.key] = places

    def report(self, queries: Iterable[GradedQuery]) -> dict[str, Any]:
        qrels = {query.key: dict(query.grades) for query in queries}
        values = {name: per_query(s.run, qrels, [*MEASURES]) for name, s in self.systems.items()}
        trained = values[TRAINED]["nDCG@10"]
        return {
            "queries": len(trained),
            "judged_only": self.judged_only,
            "depth": depth_of(self.config),
            "config_version": self.config.version,
            "fingerprint": configs.fingerprint(self.config),
            "measured_at": timezone.now().isoformat(),
            "systems": {
                name: {
                    "model": system.model,
                    **{short: _mean(values[name][long]) for long, short in MEASURES.items()},
                    "ms_p50": round(float(np.median(system.ms)), 1) if system.ms else None,
                }
                for name, system in self.systems.items()
            },
            "differences": {
                name: _difference(values[name]["nDCG@10"], trained)
                for name in self.systems
                if name != TRAINED
            },
        }


def _difference(other: Mapping[str, float], trained: Mapping[str, float]) -> dict[str, Any]:
    found = asdict(significance(other, trained))
    gaps = [trained[query] - other[query] for query in trained]
    return {
        **{name: round(value, 5) for name, value in found.items() if name != "queries"},
        "better": sum(gap > _ALIKE for gap in gaps),
        "worse": sum(gap < -_ALIKE for gap in gaps),
    }


def _mean(values: Mapping[str, float]) -> float:
    return round(sum(values.values()) / len(values), 4) if values else 0.0
