"""Grades given on the search page, by those who may edit the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from searchapp.models import Collection, Grade, Role, Trace
from searchapp.workbench import judging

from .access import whole


@dataclass(frozen=True)
class Choice:
    """One button of a hit. Pressing the pressed one takes the judgment back."""

    grade: int
    label: str
    pressed: bool

    @property
    def value(self) -> str:
        return "" if self.pressed else str(self.grade)


def judged_by(request: HttpRequest, trace: Trace) -> Mapping[str, int] | None:
    """path -> grade this user gave for the trace's query; None for one who may not judge here."""
    if not _may_judge(request, trace):
        return None
    return judging.own_grades(trace.collection, trace.query, request.user)


def choices(grade: int | None) -> Sequence[Choice]:
    return [Choice(each.value, each.label, each.value == grade) for each in Grade]


@require_POST
def judge(request: HttpRequest, uid: UUID) -> HttpResponse:
    """`passage`: the hit, whose document is judged for the search's query; `grade` 0 to 3, or empty
    to take it back. Answers with JSON where that was asked for, else returns to `next`."""
    trace = get_object_or_404(
        Trace.objects.visible_to(request.user).select_related("collection"), uid=uid
    )
    if not _may_judge(request, trace):
        raise PermissionDenied(f"{Role.EDITOR.label} of {trace.collection.slug} needed")
    passage = whole(request.POST.get("passage", ""))
    found = trace.collection.passages.filter(pk=passage).select_related("document").first()
    if found is None:
        raise Http404("no such passage in this collection")
    typed = request.POST.get("grade", "")
    if typed not in {"", *map(str, Grade.values)}:
        raise PermissionDenied(f"no grade {typed[:20]!r}")
    grade = Grade(int(typed)) if typed else None
    judging.judge(trace.collection, trace.query, found.document.path, request.user, grade)
    said = grade.label if grade is not None else "Judgment taken back"
    if request.headers.get("Accept", "").startswith("application/json"):
        return JsonResponse({"grade": grade, "message": f"{said}: {found.document}"})
    target = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = f"{reverse('trace', args=[trace.uid])}?view=list"
    return redirect(f"{target.split('#')[0]}#hit-{found.pk}")


def _may_judge(request: HttpRequest, trace: Trace) -> bool:
    if not request.user.is_authenticated:
        return False
    editable = Collection.objects.with_role(request.user, Role.EDITOR)
    return editable.filter(pk=trace.collection_id).exists()
