"""`manage.py evaluate FOLDER`: how good the search is on a judged collection."""

from __future__ import annotations

import json
import signal
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from tqdm import tqdm

from rerank.errors import RerankError
from rerank.evaluation.beir import read_folder
from searchapp.ingest.progress import BatchProgress
from searchapp.management.prepared import PreparedCommand
from searchapp.models import LANGUAGES
from searchapp.workbench.evaluation import EvaluationFailed, Progress, evaluate_folder

_COLUMNS = ["ndcg@10", "recall@100", "mrr@10", "ms_p50", "ms_p95"]


class Command(PreparedCommand):
    help = (
        "Evaluates on a folder in BEIR format (corpus.jsonl[.gz], queries.jsonl[.gz], "
        "qrels/test.tsv) in a temporary collection, without workers."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument(
            "--first-stage", choices=["lexical", "dense", "hybrid"], default="hybrid"
        )
        parser.add_argument("--no-rerank", action="store_true")
        parser.add_argument("--limit", type=_count, help="evaluate the first N queries only")
        parser.add_argument(
            "--language", choices=[code for code, _ in LANGUAGES], default="en", help="of the texts"
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data = read_folder(options["folder"]).limited(options["limit"])
            signal.signal(signal.SIGTERM, _terminated)
            with _Bars() as bars:
                report = evaluate_folder(
                    data,
                    language=options["language"],
                    first_stage=options["first_stage"],
                    rerank=not options["no_rerank"],
                    progress=Progress(bars.show_ingest, bars.show_query),
                )
        except (EvaluationFailed, RerankError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped; the temporary collection is deleted.") from None
        if options["json"]:
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self._table(report)

    def _table(self, report: dict[str, Any]) -> None:
        self.stdout.write(
            f"{report['queries']:,} queries, {report['documents']:,} documents, "
            f"{report['passages']:,} passages ingested in {report['ingest_seconds']:.1f} s"
        )
        self.stdout.write(f"{'':<10}" + "".join(f"{column:>12}" for column in _COLUMNS))
        for name, figures in report["systems"].items():
            cells = [
                f"{figures[column]:>12.{1 if column.startswith('ms') else 3}f}"
                for column in _COLUMNS
            ]
            self.stdout.write(f"{name:<10}" + "".join(cells))
        if report["reranker"]:
            self.stdout.write(f"reranker: {report['reranker']}")


def _count(raw: str) -> int:
    value = int(raw)
    if value < 1:
        raise ArgumentTypeError(f"{raw} is not at least 1")
    return value


def _terminated(*_: object) -> None:
    """A polite kill takes the way of Ctrl-C, so that the temporary collection goes."""
    raise KeyboardInterrupt


class _Bars:
    """Two progress bars on stderr, silent where nobody watches."""

    def __enter__(self) -> _Bars:
        self._ingest = tqdm(total=1, desc="ingest", unit=" files", disable=None)
        self._queries: Any = None
        return self

    def __exit__(self, *_: object) -> None:
        self._ingest.close()
        if self._queries is not None:
            self._queries.close()

    def show_ingest(self, progress: BatchProgress) -> None:
        self._ingest.total = progress.files
        self._ingest.n = progress.files_finished
        self._ingest.set_postfix(
            {"passages": progress.passages, "waiting for vectors": progress.vectors_pending}
        )

    def show_query(self, done: int, total: int) -> None:
        if self._queries is None:
            self._queries = tqdm(total=total, desc="search", unit=" queries", disable=None)
        self._queries.update(done - self._queries.n)
