"""What the scores of a trained reranker are worth: a map to probabilities, fitted on the queries
that its training held out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank.errors import BadStage
from rerank.evaluation.beir import read_qrels
from rerank.ranking.calibration import choose_calibration, from_json, to_json
from rerank.ranking.calibration_file import ModelCalibration
from rerank.ranking.reliability import kept_word
from rerank.training.examples import TrainingList, digest
from rerank.training.splitting import split
from rerank.types import RerankScores

from .judge_stage import weights_digest
from .progress import with_bar
from .records import (
    Candidates,
    Header,
    Outcome,
    Record,
    input_digest,
    is_current,
    read_candidates,
    read_header,
    untouched,
    write_stage,
)
from .training_stage import training_lists

CALIBRATION = "calibration"
# Below this many queries the map would be a guess; a collection's own needs as many.
MINIMUM_QUERIES = 50
# More of them would only take longer.
MOST_QUERIES = 400
JUDGMENTS, TARGETS = "judgments", "targets"

# A query with its documents -> their scores as the model serves them.
Serve = Callable[[Candidates], RerankScores]


@dataclass
class _Seen:
    """Pairs of held-out queries, one entry each."""

    logits: list[float] = field(default_factory=list)
    relevance: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)


def fit_calibration(
    candidates: Path,
    scores: Path,
    checkpoint: Path,
    output: Path,
    serve: Callable[[], Serve],
    *,
    qrels: Path | None = None,
    unjudged_count: bool = False,
) -> Outcome:
    """The best map by log loss on queries no fit has seen, as `read_calibration` finds it in
    `output`, or the sentence that says why there is none.

    The queries are those that the training of `checkpoint` held out of `candidates` and `scores`.
    Their labels are people's judgments: grade 1 and above is relevant, a document without one is
    left out, or not relevant with `unjudged_count`. Without `qrels` the targets stand in, which say
    how a document compares with others, not whether it is relevant. `serve()` opens the model;
    called only where there is work. Raises BadStage, BadInput and what loading raises.
    """
    made_from = {"candidates": input_digest(candidates), "scores": input_digest(scores)}
    if qrels is not None:
        made_from["qrels"] = input_digest(qrels)
    header = Header(
        CALIBRATION,
        {**made_from, "weights": weights_digest(checkpoint)},
        {"unjudged_count": unjudged_count},
    )
    if is_current(output, header):
        return untouched(output)
    kind = TARGETS if qrels is None else JUDGMENTS
    records: list[Record] = []
    fitted: ModelCalibration | str
    labels = _labels(candidates, scores, checkpoint, qrels, unjudged_count)
    if isinstance(labels, str):
        fitted = labels
    elif len(labels) < MINIMUM_QUERIES:
        fitted = (
            f"{len(labels)} of the held-out queries have documents whose relevance is known; "
            f"{MINIMUM_QUERIES} are needed."
        )
    else:
        records = list(_observed(candidates, labels, serve()))
        fitted = _fitted(_seen(records), kind, unjudged_count)
    notes: dict[str, Any] = {}
    if isinstance(fitted, str):
        notes["sentences"] = [f"The reranker has no calibration: {fitted}"]
    else:
        notes["sentences"] = [fitted.note]
        notes["calibration"] = json.loads(to_json(fitted.calibration))
        notes["report"] = dict(fitted.report)
    whole = Header(header.stage, header.made_from, header.settings, notes)
    written = write_stage(output, whole, records)
    return Outcome(output, written, sentences=tuple(notes["sentences"]))


def read_calibration(path: Path) -> ModelCalibration | None:
    """Of a file `fit_calibration` wrote; None where there was none to fit. Raises BadStage."""
    notes = read_header(path).notes
    if "calibration" not in notes:
        return None
    try:
        found = from_json(json.dumps(notes["calibration"]))
    except ValueError as error:
        raise BadStage(f"{path} holds no calibration: {error} Run the stage again.") from error
    return ModelCalibration(found, None, notes["sentences"][0], notes["report"])


def calibration_notes(path: Path) -> dict[str, Any]:
    """What a manifest says of it: how many pairs, by which map, how far it helped; or why not."""
    notes = read_header(path).notes
    if "calibration" not in notes:
        return {"none": notes["sentences"][0]}
    report = notes["report"]
    facts = {name: report[name] for name in ("method", "labels", "queries", "pairs", "relevant")}
    sides = {
        side: {"log_loss": report[side]["log_loss"], "ece": report[side]["ece"]["value"]}
        for side in ("before", "after")
    }
    return {**facts, **sides}


# --- the labels --------------------------------------------------------------------------------


def _labels(
    candidates: Path, scores: Path, checkpoint: Path, qrels: Path | None, unjudged_count: bool
) -> dict[str, dict[str, float]] | str:
    """query id -> document id -> relevance in [0, 1] of held-out queries, or why there are none."""
    held_out = _held_out(candidates, scores, checkpoint)
    if isinstance(held_out, str):
        return held_out
    targets = {each.query_id: each.targets for each in held_out}
    grades = {} if qrels is None else read_qrels(qrels)
    found: dict[str, dict[str, float]] = {}
    for query in read_candidates(candidates):
        if query.query_id not in targets or len(found) == MOST_QUERIES:
            continue
        if qrels is None:
            known = dict(zip(query.distinct(), targets[query.query_id], strict=True))
        else:
            known = _judged(query, grades.get(query.query_id, {}), unjudged_count)
        if known:
            found[query.query_id] = known
    return found


def _held_out(candidates: Path, scores: Path, checkpoint: Path) -> Sequence[TrainingList] | str:
    from rerank.training.checkpoint import read_manifest

    manifest = read_manifest(checkpoint)
    settings = manifest.settings
    if not settings["held_out"]:
        return "the training held no queries out."
    lists = list(training_lists(candidates, scores))
    parts = split(lists, settings["held_out"], settings["seed"])
    if digest(parts.held_out) != manifest.data.get("held_out", {}).get("sha256"):
        return "it was trained on other candidates or scores than these."
    return [each for each in parts.held_out if isinstance(each, TrainingList)]


def _judged(query: Candidates, grades: Mapping[str, int], unjudged_count: bool) -> dict[str, float]:
    """Copies of a text share the best grade."""
    twins = query.twins()
    best: dict[str, int] = {}
    for document in query.documents:
        own, grade = twins[document.id], grades.get(document.id)
        if grade is not None:
            best[own] = max(best.get(own, 0), grade)
        elif unjudged_count:
            best.setdefault(own, 0)
    return {name: float(grade >= 1) for name, grade in best.items()}


# --- scores and fit ----------------------------------------------------------------------------


def _observed(
    candidates: Path, labels: Mapping[str, Mapping[str, float]], serve: Serve
) -> Iterator[Record]:
    queries = [each for each in read_candidates(candidates) if each.query_id in labels]
    for query in with_bar(queries, CALIBRATION, "queries", len(queries)):
        scores, known = serve(query), labels[query.query_id]
        rows = zip(query.documents, scores.logits.tolist(), scores.relevance.tolist(), strict=True)
        yield {
            "query_id": query.query_id,
            "documents": [
                {"id": each.id, "logit": logit, "relevance": share, "label": known[each.id]}
                for each, logit, share in rows
                if each.id in known
            ],
        }


def _seen(records: Sequence[Record]) -> _Seen:
    seen = _Seen()
    for record in records:
        for document in record["documents"]:
            seen.logits.append(document["logit"])
            seen.relevance.append(document["relevance"])
            seen.labels.append(document["label"])
            seen.queries.append(record["query_id"])
    return seen


def _fitted(seen: _Seen, kind: str, unjudged_count: bool) -> ModelCalibration | str:
    try:
        choice = choose_calibration(
            seen.logits, seen.labels, seen.queries, relevance=seen.relevance
        )
    except ValueError as error:
        return str(error)
    if choice.calibration.is_constant:
        return "higher scores were not judged more relevant on the held-out queries."
    before = kept_word(seen.relevance, seen.labels, seen.queries)
    after = kept_word(choice.held_out, seen.labels, seen.queries)
    queries, pairs = len(set(seen.queries)), len(seen.labels)
    of = "judged pairs" if kind == JUDGMENTS else "pairs and their targets"
    note = (
        f"Calibrated ({choice.kind}) on {pairs:,} {of} of {queries:,} held-out queries: log loss "
        f"{before['log_loss']:.3f} before, {after['log_loss']:.3f} after, calibration error "
        f"{before['ece']['value']:.3f} and {after['ece']['value']:.3f}, on queries that no fit had "
        "seen."
    )
    report = {
        "method": choice.kind,
        "labels": kind,
        "unjudged_count": unjudged_count,
        "queries": queries,
        "pairs": pairs,
        "relevant": sum(label >= 0.5 for label in seen.labels),
        "losses": dict(choice.losses),
        "before": before,
        "after": after,
    }
    return ModelCalibration(choice.calibration, None, note, report)
