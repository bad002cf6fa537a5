"""Judgments in and out: one grade from a page, whole files from evaluation sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Min, Q

from rerank.errors import BadInput
from rerank.reading import json_rows
from searchapp.models import Collection, Document, Grade, Judgment
from searchapp.models.corpus import AnyUser
from searchapp.models.judgments import RELEVANT_FROM, Source, query_key
from searchapp.search.pipeline import MAX_QUERY_CHARACTERS

_BATCH = 1000


class BadJudgments(ValueError):
    """The files hold no judgments for this collection; the message is a sentence."""


@dataclass(frozen=True)
class JudgedQuery:
    """`grades`: path -> share of its judges who found it relevant, in [0, 1]."""

    text: str
    grades: Mapping[str, float]


@dataclass
class ImportReport:
    """What became of the lines. `unknown_…`: ids that matched nothing, each once."""

    judgments: int = 0
    queries: int = 0
    clipped: int = 0
    unknown_documents: list[str] = field(default_factory=list)
    unknown_queries: list[str] = field(default_factory=list)


# --- one grade ---------------------------------------------------------------------------------


def judge(
    collection: Collection, query: str, path: str, user: AnyUser, grade: Grade | None
) -> None:
    """The user's grade of one document for one query, in place of their earlier one; None takes it
    back."""
    if user is None or not user.is_authenticated:
        raise ValueError("a judgment needs its judge")
    key = query_key(query)
    mine = {"collection": collection, "query_key": key, "path": path, "judged_by_id": user.pk}
    if grade is None:
        Judgment.objects.filter(**mine).delete()
        return
    values = {"query": query, "grade": grade, "source": Source.PAGE}
    Judgment.objects.update_or_create(**mine, defaults=values)


def own_grades(collection: Collection, query: str, user: AnyUser) -> dict[str, int]:
    """path -> the grade this user gave for the query."""
    if user is None or not user.is_authenticated:
        return {}
    mine = Judgment.objects.filter(
        collection=collection, query_key=query_key(query), judged_by_id=user.pk
    )
    return dict(mine.values_list("path", "grade"))


# --- what is judged ----------------------------------------------------------------------------


def judged_queries(collection: Collection) -> list[JudgedQuery]:
    """Every judged query with its grades, in the order of their first judgment."""
    return [
        JudgedQuery(text, {path: _share_relevant(each) for path, each in given.items()})
        for _, text, given in grades_given(collection)
    ]


def grades_given(collection: Collection) -> list[tuple[str, str, dict[str, list[int]]]]:
    """(query key, query, path -> its judges' grades), in the order of their first judgment."""
    rows = (
        Judgment.objects.filter(collection=collection)
        .order_by("pk")
        .values_list("query_key", "query", "path", "grade")
    )
    texts: dict[str, str] = {}
    given: dict[str, dict[str, list[int]]] = {}
    for key, text, path, grade in rows.iterator():
        texts.setdefault(key, text)
        given.setdefault(key, {}).setdefault(path, []).append(grade)
    return [(key, text, given[key]) for key, text in texts.items()]


def _share_relevant(grades: Sequence[int]) -> float:
    return sum(grade >= RELEVANT_FROM for grade in grades) / len(grades)


def query_summaries(collection: Collection) -> list[Any]:
    """One mapping per judged query, the latest judged first: query_key, text, judged and relevant
    documents, imported judgments, last."""
    return list(
        Judgment.objects.filter(collection=collection)
        .order_by()
        .values("query_key")
        .annotate(
            text=Min("query"),
            judged=Count("path", distinct=True),
            relevant=Count("path", distinct=True, filter=Q(grade__gte=RELEVANT_FROM)),
            imported=Count("pk", filter=Q(source=Source.IMPORT)),
            last=Max("judged_at"),
        )
        .order_by("-last", "query_key")
    )


def forget_query(collection: Collection, key: str) -> int:
    """Deletes all judgments of one query, whoever gave them; how many there were."""
    deleted, _ = Judgment.objects.filter(collection=collection, query_key=key).delete()
    return deleted


# --- whole files -------------------------------------------------------------------------------


def import_judgments(collection: Collection, queries: Path, qrels: Path) -> ImportReport:
    """Stores the judgments of a BEIR queries.jsonl[.gz] and qrels file (also in TREC's four
    columns), in place of those imported earlier for the same queries. Raises BadJudgments.

    A document is meant when the file's id is its metadata `id`, its path, its file name or that
    without its suffix. Grades above 3 count as 3, negative ones as 0.
    """
    try:
        texts = {
            str(row["_id"]): " ".join(str(row["text"]).split())
            for row in json_rows(queries, ("_id", "text"))
        }
        lines = list(_qrels_lines(qrels))
    except BadInput as error:
        raise BadJudgments(str(error)) from error
    if not lines:
        raise BadJudgments(f"{qrels} holds no judgments.")
    return store_judgments(collection, texts, lines)


def store_judgments(
    collection: Collection, texts: Mapping[str, str], lines: Sequence[tuple[str, str, int]]
) -> ImportReport:
    """As `import_judgments`, of (query id, document id, grade) and the texts of the queries."""
    report = ImportReport()
    paths = _paths(collection, {document for _, document, _ in lines})
    rows: dict[tuple[str, str], Judgment] = {}
    missing_queries: dict[str, None] = {}
    missing_documents: dict[str, None] = {}
    for query_id, document, grade in lines:
        text, path = texts.get(query_id, ""), paths.get(document)
        if not text or len(text) > MAX_QUERY_CHARACTERS:
            missing_queries[query_id] = None
        elif path is None:
            missing_documents[document] = None
        else:
            kept = min(max(grade, 0), max(Grade.values))
            report.clipped += kept != grade
            key = query_key(text)
            rows[key, path] = Judgment(
                collection=collection,
                query=text,
                query_key=key,
                path=path,
                grade=kept,
                source=Source.IMPORT,
            )
    report.unknown_documents, report.unknown_queries = [*missing_documents], [*missing_queries]
    if not rows:
        raise BadJudgments(_nothing_matched(collection, report))
    keys = {key for key, _ in rows}
    with transaction.atomic():
        Judgment.objects.filter(
            collection=collection, source=Source.IMPORT, query_key__in=keys
        ).delete()
        Judgment.objects.bulk_create(rows.values(), batch_size=_BATCH)
    report.judgments, report.queries = len(rows), len(keys)
    return report


def files_of(folder: Path) -> tuple[Path, Path]:
    """(queries, qrels) of a folder in BEIR format. Raises BadJudgments."""
    if not folder.is_dir():
        raise BadJudgments(f"There is no folder {folder}.")
    queries = [folder / "queries.jsonl", folder / "queries.jsonl.gz"]
    qrels = [folder / "qrels" / "test.tsv", *sorted((folder / "qrels").glob("*.tsv"))]
    found = [next((path for path in each if path.is_file()), None) for each in (queries, qrels)]
    if found[0] is None or found[1] is None:
        name = "queries.jsonl" if found[0] is None else "qrels/test.tsv"
        raise BadJudgments(f"{folder} is no BEIR folder: {name} is missing.")
    return found[0], found[1]


def _qrels_lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """(query id, document id, grade) of each line. Raises BadJudgments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadJudgments(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("\t") if line.count("\t") == 2 else line.split()
        if not fields or (number == 1 and fields[-1].strip() == "score"):
            continue
        try:
            grade = int(fields[-1])
            query, document = (fields[0], fields[-2]) if len(fields) in (3, 4) else ("", "")
        except ValueError:
            query = ""
        if not query:
            raise BadJudgments(f"Line {number} of {path} is not query, document and grade.")
        yield query.strip(), document.strip(), grade


def _paths(collection: Collection, wanted: set[str]) -> dict[str, str]:
    """id in the file -> path of the document it means; the metadata's id goes first."""
    weak: dict[str, str] = {}
    strong: dict[str, str] = {}
    documents = Document.objects.filter(collection=collection).order_by("pk")
    for path, named in documents.values_list("path", "metadata__id").iterator():
        if named is not None and str(named) in wanted:
            strong.setdefault(str(named), path)
        pure = PurePosixPath(path)
        for name in (path, pure.name, pure.stem):
            if name in wanted:
                weak.setdefault(name, path)
    return weak | strong


def _nothing_matched(collection: Collection, report: ImportReport) -> str:
    if report.unknown_documents:
        example = report.unknown_documents[0]
        return (
            f"No judgment fits a document of {collection.name}: none has the id {example!r} in its "
            "metadata, or a file of that name. Import the corpus first."
        )
    return "None of the judged queries is in the queries file."
