"""Training a collection's own reranker: what there is to learn from, the job, what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from searchapp.engine import presence
from searchapp.forms.training import TrainingForm
from searchapp.models import Checkpoint, Role, TrainingJob
from searchapp.training import charts, jobs, registry, work
from searchapp.training.asked import LOSSES, METHODS, offered_bases
from searchapp.training.comparison import ACTIVE, HYBRID, TRAINED
from searchapp.training.counting import MINIMUM_QUERIES, Counts, counts, too_few, warnings

from .access import Access, opened, whole
from .uploads import time_left

PAST_JOBS = 20


@dataclass(frozen=True)
class System:
    """A line of a comparison. `gap`: the checkpoint minus it, None for the checkpoint itself;
    `middle` and `interval` are its nDCG@10 in words."""

    name: str
    figures: dict[str, Any]
    gap: dict[str, Any] | None
    picture: charts.Difference | None
    is_trained: bool
    middle: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Shown:
    """A checkpoint with what its owner needs for a decision."""

    row: Checkpoint
    systems: Sequence[System]
    sentences: Sequence[str]
    verdict: registry.Verdict
    versions: Sequence[int]
    is_in_use: bool
    facts: Sequence[tuple[str, str]]


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def training(request: HttpRequest, slug: str) -> HttpResponse:
    """GET: the page. POST: one of its buttons."""
    access = opened(request, slug, Role.OWNER)
    if request.method != "POST":
        return _page(request, access, TrainingForm(access.collection))
    action = request.POST.get("action", "")
    if action == "start":
        return _start(request, access)
    if action == "cancel":
        _cancel(request, access)
    elif action in {"activate", "compare", "retire"}:
        return _decide(request, access, action)
    else:
        raise PermissionDenied(f"no action {action!r}")
    return redirect("collection_training", slug)


@require_safe
@never_cache
def training_status(request: HttpRequest, slug: str) -> HttpResponse:
    """The job under way as a fragment."""
    access = opened(request, slug, Role.OWNER)
    return render(request, "training/_status.html", _status(access))


def _start(request: HttpRequest, access: Access) -> HttpResponse:
    form = TrainingForm(access.collection, request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    found = jobs.request_training(access.collection, request.user, form.asked())
    if isinstance(found, str):
        if access.collection.trainings.open().exists():
            # The page then shows that training in place of the form.
            messages.error(request, found)
            return redirect("collection_training", access.collection.slug)
        form.add_error(None, found)
        return _page(request, access, form)
    return redirect("collection_training", access.collection.slug)


def _cancel(request: HttpRequest, access: Access) -> None:
    job = access.collection.trainings.open().filter(pk=whole(request.POST.get("job", ""))).first()
    if job is None or not jobs.cancel(job):
        messages.info(request, "That training had ended already.")
    elif not access.collection.trainings.open().filter(pk=job.pk).exists():
        messages.success(request, "The training is cancelled. Nothing is changed.")
    else:
        messages.success(request, "The training ends at its next step. Nothing is changed.")


def _decide(request: HttpRequest, access: Access, action: str) -> HttpResponse:
    collection = access.collection
    number = whole(request.POST.get("checkpoint", ""))
    checkpoint = get_object_or_404(collection.checkpoints, pk=number)
    if action == "compare":
        problem = jobs.compare_again(checkpoint)
        done = f"Checkpoint {checkpoint.pk} is compared with the active version."
    elif action == "retire":
        problem = registry.retire(checkpoint)
        done = f"The files of checkpoint {checkpoint.pk} are deleted."
    else:
        reason, seen = request.POST.get("reason", ""), whole(request.POST.get("active", ""))
        outcome = registry.activate(checkpoint, request.user, reason, seen or None)
        problem = outcome.problem
        if problem:
            form = TrainingForm(collection)
            return _page(request, access, form, refused=(checkpoint.pk, problem, reason))
        assert outcome.activation is not None
        version = outcome.activation.config.version
        done = f"Version {version} is active: it reranks with checkpoint {checkpoint.pk}."
    if problem:
        messages.error(request, problem)
    else:
        messages.success(request, done)
    return redirect("collection_training", collection.slug)


def _page(
    request: HttpRequest,
    access: Access,
    form: TrainingForm,
    refused: tuple[int, str, str] = (0, "", ""),
) -> HttpResponse:
    collection = access.collection
    collection.refresh_from_db(fields=["active_config"])
    found = counts(collection)
    checkpoints = collection.checkpoints.select_related("job", "job__requested_by")
    wrong = form.is_bound and bool(form.errors)
    bases = offered_bases(collection)
    context = {
        **_status(access),
        "access": access,
        "tab": "training",
        "form": form,
        "counts": found,
        "needed": MINIMUM_QUERIES,
        **_readiness(found),
        "checkpoints": [_shown(each, access, bases) for each in checkpoints],
        "past": [
            _told(job, bases)
            for job in collection.trainings.select_related("requested_by")[:PAST_JOBS]
        ],
        "refused_pk": refused[0],
        "refused_problem": refused[1],
        "refused_reason": refused[2],
    }
    status = 422 if wrong or refused[1] else 200
    return render(request, "training/training.html", context, status=status)


def _readiness(found: Counts) -> dict[str, Any]:
    """With judgments alone, else with what is unjudged counted; else why not."""
    by_judgments, with_unjudged = too_few(found, False), too_few(found, True)
    return {
        "is_enough": not by_judgments or not with_unjudged,
        "only_unjudged": bool(by_judgments) and not with_unjudged,
        "too_few": by_judgments,
        "warnings": warnings(found, bool(by_judgments)),
    }


def _status(access: Access) -> dict[str, Any]:
    collection = access.collection
    job = collection.trainings.open().select_related("requested_by").first()
    # One that was compared again ended last, whichever is the newest.
    latest = collection.trainings.order_by(F("finished_at").desc(nulls_last=True), "-pk").first()
    shown = job or latest
    return {
        "collection": collection,
        "job": job,
        "told": _told(job, offered_bases(collection)) if job else None,
        "latest": latest if job is None else None,
        "curves": charts.curves(shown.points) if shown else [],
        "is_served": presence.is_served(jobs.QUEUE) if job else True,
    }


def _told(job: TrainingJob, bases: Mapping[str, str]) -> dict[str, Any]:
    """A job with its settings in words."""
    asked = job.settings
    base = asked.get("base", "")
    return {
        "job": job,
        "base": bases.get(base) or _base_name(base),
        "method": METHODS.get(asked.get("method", ""), ""),
        "loss": LOSSES.get(asked.get("loss", ""), ""),
        "epochs": asked.get("epochs"),
        "seed": asked.get("seed"),
        "unjudged": asked.get("unjudged"),
        "rate": _rate(job),
        "left": time_left(job.seconds_left),
        "taken": time_left(job.seconds_taken),
        "trained": len(job.figures.get("trained_keys", ())),
        "held_out": len(job.figures.get("held_out_keys", ())),
    }


def _base_name(base: str) -> str:
    """Of a base that is offered no more; no directories."""
    return Path(base).name if Path(base).is_absolute() else base.replace(":", " ")


def _rate(job: TrainingJob) -> str:
    if not job.rate:
        return ""
    unit = " pairs" if job.stage in work.TRAINING_STAGES else ""
    if job.rate < 1:
        return f"{60 * job.rate:,.1f}{unit} a minute"
    return f"{job.rate:,.1f}{unit} a second"


def _shown(checkpoint: Checkpoint, access: Access, bases: Mapping[str, str]) -> Shown:
    # The page's own row, so that the active version is looked up once.
    checkpoint.collection = access.collection
    active = access.collection.active_config
    verdict = registry.verdict(checkpoint)
    return Shown(
        row=checkpoint,
        systems=_systems(checkpoint),
        sentences=_sentences(checkpoint),
        verdict=verdict,
        versions=registry.versions_with(checkpoint),
        is_in_use=active is not None and active.model == checkpoint.model_name,
        facts=_facts(checkpoint, bases),
    )


def _facts(checkpoint: Checkpoint, bases: Mapping[str, str]) -> list[tuple[str, str]]:
    """What made it, of its job and its manifest; no directories."""
    told = _told(checkpoint.job, bases)
    manifest, figures = checkpoint.manifest, checkpoint.job.figures
    metrics = {k: v for k, v in manifest.get("metrics", {}).items() if isinstance(v, int | float)}
    facts = [
        ("Started from", told["base"]),
        ("Trained", f"{told['method']}; {told['loss']}; "
         f"{told['epochs']} epoch{'' if told['epochs'] == 1 else 's'}"),
        ("Seed", str(told["seed"])),
        ("Learnt from", f"{told['trained']} queries, {figures.get('labels', 0):,} judged documents"
         f" ({figures.get('relevant', 0):,} relevant)"),
        ("Logged searches", f"{figures.get('searches', 0):,}"),
        ("Left out", f"{figures.get('not_found', 0):,} queries whose relevant documents the first "
         f"stage did not bring, {figures.get('one_sided', 0):,} with relevant ones only"),
        ("Steps", f"{manifest.get('steps', 0):,} in {time_left(manifest.get('seconds'))}"),
        ("On queries set aside", ", ".join(f"{k} {v:.3f}" for k, v in metrics.items()) or "–"),
        ("Computed by", str(manifest.get("device") or "–")),
        ("Packages", ", ".join(f"{k} {v}" for k, v in manifest.get("packages", {}).items()) or "–"),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in facts]


def _systems(checkpoint: Checkpoint) -> list[System]:
    comparison = checkpoint.comparison
    version = comparison.get("config_version")
    names = {
        HYBRID: "the first stage alone",
        ACTIVE: f"version {version} as it was active",
        TRAINED: f"checkpoint {checkpoint.pk}",
    }
    gaps = comparison.get("differences", {})
    return [
        System(
            name=names[key],
            figures=figures,
            gap=gaps.get(key),
            picture=charts.difference(gaps[key], names[key]) if key in gaps else None,
            is_trained=key == TRAINED,
            middle=f"{gaps[key]['difference']:+.3f}" if key in gaps else "",
            interval=f"{gaps[key]['low']:+.3f} to {gaps[key]['high']:+.3f}" if key in gaps else "",
        )
        for key, figures in comparison.get("systems", {}).items()
    ]


def _sentences(checkpoint: Checkpoint) -> list[str]:
    """What the comparison says, for who does not read tables."""
    comparison = checkpoint.comparison
    named = {ACTIVE: f"version {comparison.get('config_version')}", HYBRID: "the first stage alone"}
    said = []
    for key, gap in comparison.get("differences", {}).items():
        by = f"{abs(gap['difference']):.3f} nDCG@10 ({gap['low']:+.3f} to {gap['high']:+.3f})"
        if gap["low"] > 0:
            said.append(f"It ranks better than {named[key]} by {by}, beyond chance.")
        elif gap["high"] < 0:
            said.append(f"It ranks worse than {named[key]} by {by}, beyond chance.")
        elif gap["low"] == gap["high"] == 0:
            said.append(f"Each held-out query is ranked as well as by {named[key]}.")
        else:
            way = "better" if gap["difference"] > 0 else "worse"
            said.append(f"Beside {named[key]} nothing is sure: {way} by {by}, which may be chance.")
    return said
