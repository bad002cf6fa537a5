"""`manage.py import_judgments COLLECTION PATH [QRELS]`: judged queries from an evaluation set."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from searchapp.management.named import collection_named
from searchapp.management.prepared import PreparedCommand
from searchapp.models.judgments import MINIMUM_JUDGED_QUERIES
from searchapp.workbench.judging import BadJudgments, files_of, import_judgments

_SHOWN = 10


class Command(PreparedCommand):
    help = (
        "Imports judgments in BEIR format: a folder with queries.jsonl[.gz] and qrels/test.tsv, or "
        "the two files. Documents are found by their metadata id, path or file name."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("collection", help="the collection's short name (slug)")
        parser.add_argument("path", type=Path, help="the folder, or queries.jsonl[.gz]")
        parser.add_argument("qrels", type=Path, nargs="?", help="query, document and grade a line")

    def handle(self, *args: Any, **options: Any) -> None:
        collection = collection_named(options["collection"])
        try:
            if options["qrels"] is None:
                queries, qrels = files_of(options["path"])
            else:
                queries, qrels = options["path"], options["qrels"]
            report = import_judgments(collection, queries, qrels)
        except BadJudgments as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{report.judgments:,} judgments of {report.queries:,} queries imported into "
            f"{collection.name}."
        )
        if report.clipped:
            self.stdout.write(f"{report.clipped:,} grades off the scale 0 to 3 were moved onto it.")
        self._tell("documents are not in the collection", report.unknown_documents)
        self._tell("queries have no usable text", report.unknown_queries)
        if report.queries < MINIMUM_JUDGED_QUERIES:
            self.stdout.write(f"A calibration needs {MINIMUM_JUDGED_QUERIES} judged queries.")

    def _tell(self, what: str, ids: list[str]) -> None:
        if not ids:
            return
        shown = ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
        self.stdout.write(
            self.style.WARNING(f"{len(ids):,} judged {what}; their lines are left out: {shown}")
        )
