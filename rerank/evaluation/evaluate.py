"""How good an order is before a reranker and after it, on a judged folder in memory.

A document is one text, title and body together; what a model does not read of a long one is cut by
that model. The product's own `manage.py evaluate` searches passages instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rerank.errors import BadInput
from rerank.evaluation.beir import BeirFolder, read_corpus
from rerank.evaluation.first_stage import FirstStage, MeaningIndex, WordIndex
from rerank.ranking.fusion import fuse_weighted
from rerank.ranking.metrics import per_query
from rerank.ranking.significance import compare
from rerank.types import Embedder, Reranker, RerankRequest

# Measure of ir-measures -> its name in the report.
MEASURES = {"nDCG@10": "ndcg@10", "R@100": "recall@100", "RR@10": "mrr@10"}
JUDGED = "Judged@10"
RERANKED = "reranked"
# How deep each leg of the first stage goes, whatever the reranker is given of it.
LEG_DEPTH = 200

# (what is at work, done, total)
Hook = Callable[[str, int, int], None]
Run = dict[str, dict[str, float]]


def _silent(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Settings:
    """`depth`: documents handed to the reranker. `dense_weight`: of meaning in the hybrid."""

    first_stage: FirstStage = "hybrid"
    depth: int = 100
    dense_weight: float = 0.7
    language: str = "en"
    instruction: str | None = None

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise BadInput(f"The depth is {self.depth}; it must be at least 1.")
        if not 0 <= self.dense_weight <= 1:
            raise BadInput(f"The dense weight is {self.dense_weight}, not within 0 and 1.")


@dataclass
class _Work:
    """What the reranker did."""

    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0
    notes: dict[str, None] = field(default_factory=dict)


def evaluate_folder(
    data: BeirFolder,
    reranker: Reranker,
    embedder: Embedder | None,
    settings: Settings,
    on_progress: Hook = _silent,
) -> dict[str, Any]:
    """The report: `systems.<name>.{ndcg@10, recall@100, mrr@10, queries, judged@10}` for each leg,
    the first stage and `reranked`, and `comparison` of the last two.

    `embedder` may be None for `bm25` only. Raises BadInput and what the models raise.
    """
    corpus = read_corpus(data.corpus)
    ids, texts = list(corpus), list(corpus.values())
    search = open_first_stage(texts, embedder, settings, on_progress)
    runs: dict[str, Run] = {}
    work = _Work()
    for done, (query_id, query) in enumerate(data.queries.items(), start=1):
        legs = search(query)
        fused = legs[settings.first_stage]
        orders = {name: list(scores) for name, scores in legs.items()}
        try:
            orders[RERANKED] = _reranked(reranker, query, fused, texts, settings, work)
        except BadInput as error:
            raise BadInput(f"The query {query_id} cannot be reranked: {error}") from error
        for name, order in orders.items():
            # Ranks settle ties by the order that was shown.
            positions = {ids[place]: -float(rank) for rank, place in enumerate(order)}
            runs.setdefault(name, {})[query_id] = positions
        on_progress("rerank", done, len(data.queries))
    values = {name: per_query(run, data.qrels, [*MEASURES, JUDGED]) for name, run in runs.items()}
    return {
        "queries": len(data.queries),
        "documents": len(texts),
        "settings": asdict(settings),
        "reranker": _card(reranker),
        "systems": {name: _means(found) for name, found in values.items()},
        "comparison": _comparison(values, settings.first_stage),
        "pairs": work.pairs,
        "tokens": work.tokens,
        "truncated": work.truncated,
        "rerank_seconds": round(work.seconds, 2),
        "notes": list(work.notes),
    }


def _card(reranker: Reranker) -> dict[str, str]:
    card = reranker.card
    return {
        "name": card.name,
        "device": card.device,
        "dtype": card.dtype,
        "revision": card.revision,
    }


def open_first_stage(
    texts: Sequence[str], embedder: Embedder | None, settings: Settings, on_progress: Hook
) -> Callable[[str], dict[str, dict[int, float]]]:
    """query -> leg -> place -> score, best first; the hybrid's scores lie in [0, 1]."""
    stage = settings.first_stage
    words = meaning = None
    if stage != "dense":
        words = WordIndex(
            texts,
            settings.language,
            on_progress=lambda done, total: on_progress("index", done, total),
        )
    if stage != "bm25":
        if embedder is None:
            raise BadInput(f"The first stage {stage} needs an embedder.")
        meaning = MeaningIndex(
            texts, embedder, on_progress=lambda done, total: on_progress("embed", done, total)
        )

    def search(query: str) -> dict[str, dict[int, float]]:
        legs: dict[str, dict[int, float]] = {}
        if words is not None:
            legs["bm25"] = words.search(query, LEG_DEPTH)
        if meaning is not None:
            legs["dense"] = meaning.search(query, LEG_DEPTH)
        if stage == "hybrid":
            legs["hybrid"] = fuse_weighted(legs["bm25"], legs["dense"], settings.dense_weight)
        return legs

    return search


def _reranked(
    reranker: Reranker,
    query: str,
    first: Mapping[int, float],
    texts: Sequence[str],
    settings: Settings,
    work: _Work,
) -> list[int]:
    """Places, best first: the reranker's candidates, then the rest as they were."""
    candidates = list(first)[: settings.depth]
    rest = list(first)[settings.depth :]
    # Scaled over the whole first stage, as the product's own priors are.
    priors = fuse_weighted(first, {}, 0.0)
    started = time.perf_counter()
    scores = reranker.score(
        RerankRequest(
            query,
            [texts[place] for place in candidates],
            settings.instruction,
            [priors[place] for place in candidates],
        )
    )
    work.seconds += time.perf_counter() - started
    work.pairs += len(candidates)
    work.tokens += scores.tokens
    work.truncated += scores.truncated
    work.notes.update(dict.fromkeys(scores.notes))
    logits = scores.logits.tolist()
    order = sorted(range(len(candidates)), key=lambda at: -logits[at])
    return [*(candidates[at] for at in order), *rest]


def _means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    count = len(values[JUDGED])
    means = {name: sum(found.values()) / max(count, 1) for name, found in values.items()}
    return {
        **{key: round(means[measure], 4) for measure, key in MEASURES.items()},
        "queries": count,
        "judged@10": round(means[JUDGED], 4),
    }


def _comparison(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], before: str
) -> dict[str, Any]:
    """Per measure: mean difference after minus before, its 95 % interval, and p."""
    found: dict[str, Any] = {"before": before, "after": RERANKED}
    for measure, key in MEASURES.items():
        result = compare(values[before][measure], values[RERANKED][measure])
        found[key] = {
            "difference": round(result.difference, 4),
            "low": round(result.low, 4),
            "high": round(result.high, 4),
            "p_value": round(result.p_value, 4),
        }
    return found
