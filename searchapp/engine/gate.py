"""What a reranker must prove before it serves: that it is sound, and that a faster backend or a
smaller number format gives what the model gives in float32."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings

from rerank.cascade import CascadeReranker
from rerank.errors import DeviceError
from rerank.inference.models import UNTRAINED
from rerank.inference.scorer import Scorer, is_batched
from rerank.types import ModelCard, Reranker
from searchapp.engine import local

if TYPE_CHECKING:
    from rerank.parity.report import ParityReport

logger = logging.getLogger(__name__)

# A report made by other checks than today's says nothing; raise this when they change.
CHECKS_VERSION = 1
# Of the checks without a reference, which a start waits for.
QUICK_DOCUMENTS = 8


def admit(model: str = "default", collection_id: int = 0) -> ModelCard:
    """The card of a model that may serve. Raises RerankError, above all ModelRefused, which every
    job for the model is then answered with.

    What passed once is not asked again until the model, its backend or its device changes.
    """
    reranker = local.load_reranker(model, collection_id)
    whole = local.reranker_name(model, collection_id)
    for part, name in _parts(reranker, whole):
        report = _report(part, name)
        if not report.passed:
            reason = sentence(part.card, report)
            local.refuse(whole, reason)
            raise local.ModelRefused(reason)
    return reranker.card


def examined(model: str, collection_id: int) -> ParityReport:
    """The report of every check there is, made now and kept: of a model that is about to serve for
    the first time. Raises RerankError."""
    reranker = local.load_reranker(model, collection_id)
    report = _made(reranker, local.reranker_name(model, collection_id), every_check=True)
    _keep(report_path(reranker.card), report.as_json())
    return report


def _parts(reranker: Reranker, name: str) -> Iterator[tuple[Reranker, str]]:
    """What computes here, each with the name it is loaded by: the model, or those in a cascade.

    What a remote endpoint computes with is not ours to measure, and each request costs.
    """
    if is_batched(reranker):
        yield reranker, name
    if isinstance(reranker, CascadeReranker):
        for stage in reranker.rerankers:
            if isinstance(stage, Scorer):
                yield stage, stage.card.name


def _report(reranker: Reranker, name: str) -> ParityReport:
    """The kept one where it passed, else a new one."""
    card = reranker.card
    path = report_path(card)
    report = _kept(path) if card.revision else None
    if report is None or not report.passed:
        report = _made(reranker, name)
        _keep(path, report.as_json())
    return report


def needs_reference(card: ModelCard) -> bool:
    """Whether something else computes the scores than plain torch in float32. Our own tests hold
    the built-in baseline to it."""
    return card.name != UNTRAINED and "-float32-torch" not in card.revision


def sentence(card: ModelCard, report: ParityReport) -> str:
    failed = [check.sentence.strip().rstrip(".") for check in report.failures]
    return (
        f"The reranker {card.name} failed a check and does not serve: "
        f"{'; '.join(failed) or 'no check applied to it'}."
    )


def report_path(card: ModelCard) -> Path:
    """Where the checks' report is kept: one per model revision and device."""
    name = hashlib.sha256(
        f"{CHECKS_VERSION} {card.name} {card.revision} {card.device}".encode()
    ).hexdigest()[:16]
    return Path(settings.VAR_DIR) / "parity" / f"{name}.json"


def _made(reranker: Reranker, name: str, every_check: bool = False) -> ParityReport:
    """All checks beside the model in float32; those that need no reference, on a few texts unless
    `every_check`, where the model is the reference itself or the memory does not hold it a second
    time."""
    from rerank.parity.gate import run_parity, self_check
    from rerank.parity.probes import Probe, built_in_probes

    card = reranker.card
    started = time.perf_counter()
    reference = None
    if needs_reference(card):
        try:
            reference = local.load_reference(name)
        except DeviceError as error:
            logger.warning("%s could not be held against float32: %s", card.name, error)
    if reference is None:
        whole = built_in_probes()[0]
        few = Probe(whole.query, whole.documents[:QUICK_DOCUMENTS])
        report = self_check(reranker, probes=None if every_check else [few])
    else:
        report = run_parity(reranker, reference)
    verdict, level = ("passed", logging.INFO) if report.passed else ("failed", logging.ERROR)
    elapsed = time.perf_counter() - started
    logger.log(level, "%s %s its checks in %.1f s", card.name, verdict, elapsed)
    logger.log(level, "%s", report.as_text())
    return report


def _kept(path: Path) -> ParityReport | None:
    from rerank.parity.report import ParityReport

    try:
        return ParityReport.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _keep(path: Path, report: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".tmp")
        written.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        written.replace(path)
    except OSError as error:
        logger.warning("the parity report cannot be kept in %s: %s", path, error)
