"""From a checkpoint's directory to a row, to a decision, to the version that serves it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import transaction

from rerank.errors import RerankError
from rerank.ranking.calibration import to_json
from rerank.ranking.calibration_file import load_model_calibration
from searchapp.engine import gate
from searchapp.models import (
    Calibration,
    CalibrationState,
    Checkpoint,
    CheckpointState,
    SearchConfig,
    TrainingJob,
)
from searchapp.models.corpus import AnyUser
from searchapp.models.training import training_folder
from searchapp.search import configs

from .asked import CannotTrain
from .comparison import ACTIVE, HYBRID
from .searching import DEFAULT_DEPTH

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"
_OTHERS = {ACTIVE: "the reranker in use", HYBRID: "the first stage alone"}


@dataclass(frozen=True)
class Verdict:
    """Whether a checkpoint may be activated now; `reasons` why not, sentences."""

    may: bool
    reasons: Sequence[str] = ()


# --- from the job to a row ---------------------------------------------------------------------


def register(job: TrainingJob, directory: Path, trained_on: Sequence[str]) -> Checkpoint:
    """Puts the trained model in its place and makes its row. Raises CannotTrain, OSError."""
    place = job.folder / CHECKPOINT_FOLDER
    if directory != place:
        shutil.rmtree(place, ignore_errors=True)
        directory.rename(place)
    return Checkpoint.objects.create(
        collection=job.collection,
        job=job,
        directory=place.relative_to(training_folder()).as_posix(),
        manifest=_manifest(place),
        trained_on=list(trained_on),
    )


def examine(checkpoint: Checkpoint) -> None:
    """The checks every reranker owes before it serves, all of them; a failure refuses it."""
    try:
        report = gate.examined(checkpoint.model_name, checkpoint.collection_id)
    except RerankError as error:
        checkpoint.parity = {"passed": False, "error": str(error)}
    else:
        checkpoint.parity = {
            "passed": report.passed,
            "checks": [asdict(check) for check in report.checks],
        }
    _settle(checkpoint, "parity")


def compared(checkpoint: Checkpoint, comparison: dict[str, Any]) -> None:
    checkpoint.comparison = comparison
    _settle(checkpoint, "comparison")


def _settle(checkpoint: Checkpoint, written: str) -> None:
    """Refused or not, by what is known now. What was activated stays so: its owner decided, maybe
    while this was measured."""
    fields = [written, "updated_at"]
    with transaction.atomic():
        rows = Checkpoint.objects.select_for_update().filter(pk=checkpoint.pk)
        told = rows.values_list("state", "reasons").first()
        if told is not None:
            checkpoint.state, checkpoint.reasons = told
        if checkpoint.state in {CheckpointState.CANDIDATE, CheckpointState.REFUSED}:
            reasons = findings(checkpoint)
            checkpoint.state = CheckpointState.REFUSED if reasons else CheckpointState.CANDIDATE
            checkpoint.reasons = " ".join(reasons)
            fields += ["state", "reasons"]
        checkpoint.save(update_fields=fields)


def findings(checkpoint: Checkpoint) -> list[str]:
    """What speaks against it for certain: a failed check, or a loss beyond chance."""
    reasons = []
    parity = checkpoint.parity
    if parity and not parity["passed"]:
        if error := parity.get("error"):
            reasons.append(f"It cannot serve: {error}")
        # None: the check does not apply.
        failed = [each["sentence"] for each in parity.get("checks", ()) if each["passed"] is False]
        reasons += [f"It failed a check: {sentence}" for sentence in failed]
    for name, difference in checkpoint.comparison.get("differences", {}).items():
        if difference["high"] < 0:
            reasons.append(
                f"It ranks worse than {_OTHERS[name]}, beyond chance: nDCG@10 "
                f"{difference['difference']:+.3f} ({difference['low']:+.3f} to "
                f"{difference['high']:+.3f}) on {checkpoint.comparison['queries']} held-out "
                "queries."
            )
    return reasons


# --- the decision ------------------------------------------------------------------------------


def verdict(checkpoint: Checkpoint) -> Verdict:
    """By the checks, and by a comparison with the version that is active now."""
    if checkpoint.state == CheckpointState.RETIRED:
        return Verdict(False, ["Its files are deleted."])
    if reasons := findings(checkpoint):
        return Verdict(False, reasons)
    if not checkpoint.parity:
        return Verdict(False, ["It has not been checked yet."])
    comparison = checkpoint.comparison
    if not comparison:
        return Verdict(False, ["It has not been compared yet. Compare it, then decide."])
    active = checkpoint.collection.active_config
    if active is not None and active.model == checkpoint.model_name:
        return Verdict(False, [f"Version {active.version}, which is active, uses it."])
    if is_stale(checkpoint):
        return Verdict(
            False,
            [
                f"It was compared with version {comparison['config_version']}; another one is "
                "active now. Compare it again, then decide."
            ],
        )
    return Verdict(True)


def is_stale(checkpoint: Checkpoint) -> bool:
    """Whether the comparison says nothing about the version that is active now."""
    active = checkpoint.collection.active_config
    return active is None or checkpoint.comparison.get("fingerprint") != configs.fingerprint(active)


def activate(
    checkpoint: Checkpoint, user: AnyUser, reason: str, seen_active_id: int | None = None
) -> configs.Outcome:
    """A new version, the active one with this reranker; going back is activating the old one."""
    with transaction.atomic():
        row = (
            Checkpoint.objects.select_for_update(of=("self",))
            .select_related("collection__active_config")
            .get(pk=checkpoint.pk)
        )
        decided = verdict(row)
        if not decided.may:
            return configs.Outcome(None, decided.reasons[0])
        active = row.collection.active_config
        assert active is not None  # else the comparison would be stale
        Checkpoint.objects.filter(pk=row.pk).update(state=CheckpointState.ACTIVE, reasons="")
        changes: dict[str, Any] = {"model": row.model_name}
        if not active.rerank_depth:
            changes["rerank_depth"] = DEFAULT_DEPTH
        outcome = configs.activate_changed(row.collection, changes, user, reason, seen_active_id)
        if outcome.activation is None:
            transaction.set_rollback(True)
        else:
            _bring_calibration(row, outcome.activation.config, user)
        return outcome


def _bring_calibration(checkpoint: Checkpoint, config: SearchConfig, user: AnyUser) -> None:
    """What the training fitted on the judgments it held out serves until the collection calibrates
    by itself. A map to targets would be no probability of relevance, so it is left alone."""
    known = Calibration.objects.serving(checkpoint.collection_id, checkpoint.model_name)
    if known.exists():
        return
    try:
        found = load_model_calibration(checkpoint.path)
    except (OSError, ValueError) as error:
        logger.error("the calibration of %s cannot be read: %s", checkpoint.model_name, error)
        return
    if found is None or found.report.get("labels") != "judgments":
        return
    report = {**found.report, "searches": 0, "confidence": None, "came_with": checkpoint.pk}
    Calibration.objects.create(
        collection_id=checkpoint.collection_id,
        config=config,
        model=checkpoint.model_name,
        kind=report["method"],
        parameters=json.loads(to_json(found.calibration)),
        report=report,
        unjudged_count=report["unjudged_count"],
        state=CalibrationState.READY,
        created_by_id=user.pk if user is not None and user.is_authenticated else None,
    )


def retire(checkpoint: Checkpoint) -> str:
    """Deletes its files for good. Returns why not, or ""."""
    with transaction.atomic():
        row = (
            Checkpoint.objects.select_for_update(of=("self",))
            .select_related("collection__active_config", "job")
            .get(pk=checkpoint.pk)
        )
        active = row.collection.active_config
        if active is not None and active.model == row.model_name:
            return (
                f"Version {active.version}, which is active, uses it. Activate another version "
                "first."
            )
        if row.job.is_open:
            return "Its training is still under way."
        row.state = CheckpointState.RETIRED
        row.reasons = "Its files were deleted."
        row.save(update_fields=["state", "reasons", "updated_at"])
        transaction.on_commit(lambda: _delete(row.job.folder))
    return ""


def clear(job: TrainingJob) -> None:
    """Deletes what the job no longer needs: texts of documents and queries, and states to go on
    from. A checkpoint that has its row stays."""
    keep = set()
    if Checkpoint.objects.filter(job_id=job.pk).exists():
        keep.add(CHECKPOINT_FOLDER)
    try:
        for path in job.folder.iterdir():
            if path.name in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not keep:
            job.folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("%s could not be cleared: %s", job.folder, error)


def versions_with(checkpoint: Checkpoint) -> list[int]:
    """The versions that name it, newest first."""
    found = SearchConfig.objects.filter(
        collection_id=checkpoint.collection_id, model=checkpoint.model_name
    )
    return list(found.order_by("-version").values_list("version", flat=True))


def _manifest(place: Path) -> dict[str, Any]:
    try:
        found = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotTrain("The training left a checkpoint without a manifest.") from error
    return dict(found) if isinstance(found, dict) else {}


def _delete(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("%s could not be deleted: %s", folder, error)
