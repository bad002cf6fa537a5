"""/api/v1/collections/…/judgments: list, give, take back, import, export."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field as Limited

from searchapp.models import Document, Family, Grade, Judgment, Scope
from searchapp.models.judgments import query_key
from searchapp.search.pipeline import MAX_QUERY_CHARACTERS
from searchapp.workbench import judging

from ..refusals import Refusal
from ..v1.documents import MAX_BODY_BYTES
from .endpoint import Answer, Call, endpoint
from .places import held
from .schemas import MOST_ID, Body, Nothing, Path, Query, Shown, Text

MOST_LISTED = 1000
MOST_IMPORTED = 100_000


class JudgmentRecord(Shown):
    """`grade` from 0 (not relevant) to 3 (exactly right). Imported ones have no judge."""

    id: int
    query: str
    path: str
    grade: int
    source: Literal["page", "import"]
    judged_by: str | None
    judged_at: datetime


class JudgmentList(Shown):
    """Newest last. `next_after`: where the next page begins, None on the last one."""

    judgments: list[JudgmentRecord]
    next_after: int | None


class Listed(Query):
    """`query`: judgments of this query only; case and spacing do not matter."""

    limit: int = Limited(100, ge=1, le=MOST_LISTED)
    after: int = Limited(0, ge=0, le=MOST_ID)
    query: Text | None = None


class Given(Body):
    """How well the document answers the query. `grade` null takes your judgment back."""

    query: Text = Limited(min_length=1, max_length=MAX_QUERY_CHARACTERS)
    path: Path
    grade: int | None = Limited(ge=0, le=3)


class Kept(Shown):
    query: str
    path: str
    grade: int | None


class Line(Body):
    """`document`: the `id` in a document's metadata, its path, or its file's name."""

    query: Text = Limited(min_length=1, max_length=MAX_QUERY_CHARACTERS)
    document: Text = Limited(min_length=1, max_length=1024)
    grade: int = Limited(ge=0, le=3)


class Import(Body):
    judgments: list[Line] = Limited(min_length=1, max_length=MOST_IMPORTED)


class Imported(Shown):
    """How many were stored, for how many queries, and what matched no document (the first 1000)."""

    judgments: int
    queries: int
    unknown_documents: list[str]


class ExportLine(Shown):
    query: str
    document: str
    grade: int
    judged_by: str | None


class Export(Shown):
    """The oldest first. Without `judged_by`, lines are what an import takes."""

    judgments: list[ExportLine]


PLACE = "collections/<slug:slug>/judgments"


@endpoint("GET", PLACE, Scope.JUDGE, Family.JUDGMENTS, query=Listed, answer=JudgmentList)
def list_judgments(call: Call, asked: Listed, slug: str) -> Answer:
    """Everybody's judgments in a collection."""
    collection = held(call.caller, slug, Scope.JUDGE)
    if isinstance(collection, Refusal):
        return collection
    rows = Judgment.objects.filter(collection=collection, pk__gt=asked.after).order_by("pk")
    if asked.query is not None:
        rows = rows.filter(query_key=query_key(asked.query))
    found = list(rows.select_related("judged_by")[: asked.limit + 1])
    more, found = len(found) > asked.limit, found[: asked.limit]
    return JudgmentList(
        judgments=[
            JudgmentRecord(
                id=row.pk,
                query=row.query,
                path=row.path,
                grade=row.grade,
                source="import" if row.source == "import" else "page",
                judged_by=row.judged_by.get_username() if row.judged_by is not None else None,
                judged_at=row.judged_at,
            )
            for row in found
        ],
        next_after=found[-1].pk if more else None,
    )


@endpoint("POST", PLACE, Scope.JUDGE, Family.JUDGMENTS, body=Given, answer=Kept)
def give_judgment(call: Call, asked: Given, slug: str) -> Answer:
    """The judgment of the key's owner, in place of their earlier one for query and document."""
    collection = held(call.caller, slug, Scope.JUDGE)
    if isinstance(collection, Refusal):
        return collection
    query = asked.query.strip()
    if not query:
        return Refusal(400, "no-query", "Name the query that the document answers.")
    is_there = Document.objects.filter(collection=collection, path=asked.path).exists()
    if asked.grade is not None and not is_there:
        return Refusal(404, "unknown-document", f"There is no document “{asked.path[:200]}”.")
    grade = Grade(asked.grade) if asked.grade is not None else None
    judging.judge(collection, query, asked.path, call.caller.user, grade)
    return Kept(query=query, path=asked.path, grade=asked.grade)


@endpoint(
    "POST",
    f"{PLACE}/import",
    Scope.JUDGE,
    Family.JUDGMENTS,
    body=Import,
    body_bytes=MAX_BODY_BYTES,
    answer=Imported,
)
def import_judgments(call: Call, asked: Import, slug: str) -> Answer:
    """Judgments of an evaluation set, in place of those imported earlier for the same queries.
    Where lines name a query and document twice, the last one counts."""
    collection = held(call.caller, slug, Scope.JUDGE)
    if isinstance(collection, Refusal):
        return collection
    texts = {query_key(each.query): " ".join(each.query.split()) for each in asked.judgments}
    lines = [(query_key(each.query), each.document, each.grade) for each in asked.judgments]
    try:
        report = judging.store_judgments(collection, texts, lines)
    except judging.BadJudgments as error:
        return Refusal(400, "nothing-imported", str(error))
    return Imported(
        judgments=report.judgments,
        queries=report.queries,
        unknown_documents=report.unknown_documents[:1000],
    )


@endpoint("GET", f"{PLACE}/export", Scope.JUDGE, Family.JUDGMENTS, answer=Export)
def export_judgments(call: Call, asked: Nothing, slug: str) -> Answer:
    """All judgments at once, as an import takes them."""
    collection = held(call.caller, slug, Scope.JUDGE)
    if isinstance(collection, Refusal):
        return collection
    rows = Judgment.objects.filter(collection=collection).order_by("pk")
    values = rows.values_list("query", "path", "grade", "judged_by__username")
    return Export(
        judgments=[
            ExportLine(query=query, document=path, grade=grade, judged_by=judge)
            for query, path, grade, judge in values
        ]
    )
