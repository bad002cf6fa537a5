"""A collection's judged queries through its own search: what its reranker's scores are worth."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from django.utils import timezone

from rerank.errors import RerankError
from rerank.ranking.calibration import Choice, choose_calibration, to_json
from rerank.ranking.confidence import ConfidenceFit, RiskCoverage, fit_confidence
from rerank.ranking.reliability import kept_word
from searchapp.engine import local
from searchapp.engine.sockets import EmbedSocket, RerankSocket
from searchapp.models import (
    Calibration,
    CalibrationState,
    Checkpoint,
    Collection,
    Document,
    Judgment,
    SearchConfig,
)
from searchapp.models.corpus import AnyUser
from searchapp.models.judgments import MINIMUM_JUDGED_QUERIES, query_key
from searchapp.search import pipeline
from searchapp.search.result import SearchResult

from .judging import JudgedQuery, judged_queries

logger = logging.getLogger(__name__)

# In this process there is nobody to wait for; the rerank takes the time it takes.
_DEADLINE_SECONDS = 3600.0
_PROGRESS_SECONDS = 1.0
_TRIES = 3
_PAUSE_SECONDS = 1.0
# A curve on a page needs no more points than it has pixels.
_CURVE_POINTS = 120

Progress = Callable[[int, int], None]


class CalibrationFailed(RuntimeError):
    """The message is a sentence."""


@dataclass
class Observations:
    """The judged pairs of all queries, and of each query with a judged first hit all its logits."""

    logits: list[float] = field(default_factory=list)
    relevance: list[float] = field(default_factory=list)
    grades: list[float] = field(default_factory=list)
    queries: list[int] = field(default_factory=list)
    searches: list[Sequence[float]] = field(default_factory=list)
    first_relevant: list[float] = field(default_factory=list)
    model: str = ""


def request_calibration(
    collection: Collection, user: AnyUser, *, unjudged_count: bool = False
) -> Calibration | str:
    """A queued calibration of the active config, or the sentence that says why there is none."""
    if collection.active_config is None:
        return "The collection has no active search config."
    if not collection.active_config.rerank_depth:
        return "The active search config turns reranking off: there are no scores to calibrate."
    if problem := too_few(collection, collection.active_config):
        return problem
    if Calibration.objects.filter(collection=collection).under_way().exists():
        return "A calibration is under way already."
    return Calibration.objects.create(
        collection=collection,
        config=collection.active_config,
        unjudged_count=unjudged_count,
        created_by_id=user.pk if user is not None and user.is_authenticated else None,
    )


def run(
    calibration_id: int,
    *,
    embedder: EmbedSocket | None = None,
    reranker: RerankSocket | None = None,
    on_progress: Progress = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Carries out a queued calibration in this process; its state afterwards. Never raises for
    what its row can say; "gone" for a row that is not waiting (any more). `stopped` is asked before
    each query: a worker that is to end does not finish hundreds of searches first."""
    claimed = Calibration.objects.filter(pk=calibration_id, state=CalibrationState.QUEUED)
    if not claimed.update(state=CalibrationState.RUNNING, updated_at=timezone.now()):
        return "gone"
    row = Calibration.objects.select_related(
        "config", "collection__active_config", "collection__active_generation"
    ).get(pk=calibration_id)
    try:
        if embedder is None and row.config.dense_depth:
            local.warm_up_embedder()  # else the first queries would wait for the model to load
        seen = _observe(
            row,
            embedder or local.embedder(),
            reranker or local.reranker(),
            _reporter(row, on_progress),
            stopped,
        )
        _store(row, seen)
    except (CalibrationFailed, RerankError, pipeline.BadQuery) as error:
        fail(row, str(error))
    except Exception as error:
        logger.exception("calibration %d failed", row.pk)
        fail(row, f"The calibration failed ({type(error).__name__}).")
    return row.state


def too_few(collection: Collection, config: SearchConfig) -> str:
    """Why there are not enough judged queries yet for the scores of a version, or ""."""
    count = Judgment.objects.filter(collection=collection).query_count()
    if count < MINIMUM_JUDGED_QUERIES:
        return (
            f"A calibration needs {MINIMUM_JUDGED_QUERIES} judged queries; there "
            f"{'is' if count == 1 else 'are'} {count}."
        )
    fresh = len(_fresh_queries(collection, config)) if _learnt_keys(collection, config) else count
    if fresh < MINIMUM_JUDGED_QUERIES:
        return (
            f"{config.model.replace(':', ' ').capitalize()} was trained on {count - fresh} of the "
            f"{count} judged queries, where its scores are too good. A calibration needs "
            f"{MINIMUM_JUDGED_QUERIES} others; there {'is' if fresh == 1 else 'are'} {fresh}."
        )
    return ""


def _fresh_queries(collection: Collection, config: SearchConfig) -> list[JudgedQuery]:
    """Without those that the version's reranker was trained on."""
    learnt = _learnt_keys(collection, config)
    return [each for each in judged_queries(collection) if query_key(each.text) not in learnt]


def _learnt_keys(collection: Collection, config: SearchConfig) -> set[str]:
    checkpoint = Checkpoint.objects.named(config.model, collection.pk)
    return set() if checkpoint is None else set(checkpoint.trained_on)


# --- the searches ------------------------------------------------------------------------------


def _observe(
    row: Calibration,
    embedder: EmbedSocket,
    reranker: RerankSocket,
    on_progress: Progress,
    stopped: Callable[[], bool],
) -> Observations:
    if problem := too_few(row.collection, row.config):
        raise CalibrationFailed(problem)
    queries = _fresh_queries(row.collection, row.config)
    paths = dict(Document.objects.filter(collection=row.collection).values_list("pk", "path"))
    seen = Observations()
    for number, judged in enumerate(queries):
        on_progress(number, len(queries))
        if stopped():
            raise CalibrationFailed("Its worker was stopped. Start it again.")
        result = _searched(judged.text, row, embedder, reranker)
        _add(seen, number, judged, result, paths, row.unjudged_count)
    on_progress(len(queries), len(queries))
    return seen


def _searched(
    query: str, row: Calibration, embedder: EmbedSocket, reranker: RerankSocket
) -> SearchResult:
    """Tried again while the query's vector is late or the reranker overloaded: a busy machine is no
    reason to give up.

    A number fitted with a stage missing would be a number of something else: CalibrationFailed.
    """
    for tried in range(_TRIES):
        if tried:
            time.sleep(_PAUSE_SECONDS)
        result = pipeline.search(
            query,
            row.collection,
            user=pipeline.operator(),
            config=row.config,
            embedder=embedder,
            reranker=reranker,
            deadline=time.time() + _DEADLINE_SECONDS,
        )
        leg = result.legs["dense"]
        missing = leg.status == "skipped" and row.config.dense_depth > 0
        if not missing and result.rerank.code != "overloaded":
            break
    if missing:
        raise CalibrationFailed(f"“{query[:80]}” had no vector: {leg.reason}")
    _check_rerank(result)
    return result


def _check_rerank(result: SearchResult) -> None:
    if not result.hits:
        return
    if result.rerank.status != "ok":
        raise CalibrationFailed(f"“{result.query[:80]}” was not reranked: {result.rerank.reason}")
    if result.rerank.scale == "rank":
        raise CalibrationFailed("This reranker gives ranks, not scores: they cannot be calibrated.")


def _add(
    seen: Observations,
    number: int,
    judged: JudgedQuery,
    result: SearchResult,
    paths: dict[int, str],
    unjudged_count: bool,
) -> None:
    """A document stands for itself by its best passage: grades are given to documents."""
    unjudged = 0.0 if unjudged_count else None
    documents: set[int] = set()
    scored = [hit for hit in result.hits if hit.logit is not None and hit.relevance is not None]
    if not scored:
        return
    seen.model = result.rerank.model
    for hit in scored:
        grade = judged.grades.get(paths.get(hit.document_id, ""), unjudged)
        if grade is None or hit.document_id in documents:
            continue
        documents.add(hit.document_id)
        seen.logits.append(hit.logit or 0.0)
        seen.relevance.append(hit.relevance or 0.0)
        seen.grades.append(grade)
        seen.queries.append(number)
    first = judged.grades.get(paths.get(scored[0].document_id, ""), unjudged)
    if first is not None:
        seen.searches.append([hit.logit or 0.0 for hit in scored])
        seen.first_relevant.append(first)


# --- the fit and its report --------------------------------------------------------------------


def _store(row: Calibration, seen: Observations) -> None:
    found = len(set(seen.queries))
    if found < MINIMUM_JUDGED_QUERIES:
        raise CalibrationFailed(
            f"The searches of {found} queries brought a judged document to light; "
            f"{MINIMUM_JUDGED_QUERIES} are needed."
        )
    if len(set(seen.grades)) < 2:
        kind = "relevant" if seen.grades[0] else "not relevant"
        raise CalibrationFailed(
            f"Every judged document that was found is {kind}. Judge others too, or count what has "
            "no judgment as not relevant."
        )
    # Some endpoints' relevance is no share of one; the kinds that map the logit remain.
    is_share = min(seen.relevance) >= 0 and max(seen.relevance) <= 1
    try:
        choice = choose_calibration(
            seen.logits,
            seen.grades,
            seen.queries,
            relevance=seen.relevance if is_share else None,
        )
    except ValueError as error:
        raise CalibrationFailed(str(error)) from error
    sure = fit_confidence(seen.searches, seen.first_relevant)
    row.model = seen.model
    row.kind = choice.kind
    row.parameters = json.loads(to_json(choice.calibration))
    row.confidence = sure.confidence.as_json() if sure and sure.curve.beats_chance else None
    row.report = _report(seen, choice, sure)
    row.state = CalibrationState.READY
    row.message = choice.warning
    row.save()


def _report(seen: Observations, choice: Choice, sure: ConfidenceFit | None) -> dict[str, Any]:
    """All `after` figures are of pairs whose query the fit had not seen."""
    return {
        "before": kept_word(seen.relevance, seen.grades, seen.queries),
        "after": kept_word(choice.held_out, seen.grades, seen.queries),
        "queries": len(set(seen.queries)),
        "pairs": len(seen.grades),
        "relevant": sum(1 for grade in seen.grades if grade >= 0.5),
        "losses": dict(choice.losses),
        "searches": len(seen.searches),
        "confidence": None if sure is None else _curve(sure.curve),
    }


def _curve(curve: RiskCoverage) -> dict[str, Any]:
    step = max(1, len(curve.risk) // _CURVE_POINTS)
    kept = sorted({*range(0, len(curve.risk), step), len(curve.risk) - 1})
    return {
        "coverage": [round(curve.coverage[i], 5) for i in kept],
        "risk": [round(curve.risk[i], 5) for i in kept],
        "area": curve.area,
        "random": curve.random,
        "oracle": curve.oracle,
        "gain": asdict(curve.gain),
        "beats_chance": curve.beats_chance,
    }


def _reporter(row: Calibration, on_progress: Progress) -> Progress:
    """Writes the progress into the row, not at every query; that also says the worker lives."""
    wrote = 0.0

    def report(done: int, total: int) -> None:
        nonlocal wrote
        on_progress(done, total)
        if done == total or time.monotonic() - wrote >= _PROGRESS_SECONDS:
            wrote = time.monotonic()
            Calibration.objects.filter(pk=row.pk).update(
                done=done, total=total, updated_at=timezone.now()
            )
            row.done, row.total = done, total

    return report


def fail(row: Calibration, message: str) -> None:
    """Ends a calibration with the sentence that says why."""
    row.state, row.message = CalibrationState.FAILED, message
    row.save(update_fields=["state", "message", "updated_at"])
