"""`manage.py calibrate COLLECTION`: fits calibration and confidence in this process."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from tqdm import tqdm

from rerank.ranking.calibration import from_json
from rerank.ranking.calibration_file import ModelCalibration, save_model_calibration
from rerank.ranking.confidence import Confidence
from searchapp.management.named import collection_named
from searchapp.management.prepared import PreparedCommand
from searchapp.models import Calibration, CalibrationState
from searchapp.search.pipeline import operator
from searchapp.workbench import calibrating


class Command(PreparedCommand):
    help = "Runs the collection's judged queries and fits what the reranker's scores are worth."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("collection", help="the collection's short name (slug)")
        parser.add_argument(
            "--unjudged",
            choices=["skip", "irrelevant"],
            default="skip",
            help="candidates without a judgment: left out, or counted as not relevant (right where "
            "the judgments name every relevant document, as evaluation sets claim)",
        )
        parser.add_argument(
            "--write", type=Path, metavar="FOLDER", help="also write calibration.json there"
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        collection = collection_named(options["collection"])
        folder = options["write"]
        if folder is not None and not folder.is_dir():
            raise CommandError(f"There is no folder {folder}.")
        unjudged = options["unjudged"] == "irrelevant"
        row = calibrating.request_calibration(collection, operator(), unjudged_count=unjudged)
        if isinstance(row, str):
            raise CommandError(row)
        try:
            with tqdm(total=1, desc="searching", unit=" queries", disable=None) as bar:
                calibrating.run(row.pk, on_progress=lambda done, total: _show(bar, done, total))
        except KeyboardInterrupt:
            calibrating.fail(row, "The calibration was stopped.")
            raise CommandError("Stopped; nothing is changed.") from None
        row.refresh_from_db()
        if row.state != CalibrationState.READY:
            raise CommandError(row.message)
        if options["json"]:
            self.stdout.write(json.dumps({"model": row.model, "kind": row.kind, **row.report}))
        else:
            self._show_report(row)
        if folder is not None:
            _write(row, folder)

    def _show_report(self, row: Calibration) -> None:
        report = row.report
        self.stdout.write(
            f"{report['pairs']:,} pairs of {report['queries']:,} judged queries, "
            f"{report['relevant']:,} relevant; model {row.model}; map: {row.kind}"
        )
        self.stdout.write(f"{'':<22}{'error (ECE)':>12}{'95 % interval':>18}{'Brier':>9}")
        for name, label in (("before", "relevance"), ("after", "calibrated, held out")):
            side = report[name]
            ece = side["ece"]
            interval = f"{ece['low']:.3f} to {ece['high']:.3f}"
            self.stdout.write(
                f"{label:<22}{ece['value']:>12.3f}{interval:>18}{side['brier']:>9.3f}"
            )
        if row.message:
            self.stdout.write(self.style.WARNING(row.message))
        sure = report["confidence"]
        if sure is None:
            self.stdout.write("No confidence: too few searches had a judged first hit.")
            return
        self.stdout.write(
            f"confidence: area under risk and coverage {sure['area']:.3f}, at random "
            f"{sure['random']:.3f}, at best {sure['oracle']:.3f}; saves "
            f"{sure['gain']['value']:.3f} ({sure['gain']['low']:.3f} to {sure['gain']['high']:.3f})"
        )
        if not sure["beats_chance"]:
            self.stdout.write("It may be chance, so searches show no confidence.")


def _show(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _write(row: Calibration, folder: Path) -> None:
    report = row.report
    note = f"{report['pairs']:,} pairs of {report['queries']:,} queries in {row.collection.name}."
    save_model_calibration(
        folder,
        ModelCalibration(
            from_json(json.dumps(row.parameters)),
            Confidence.from_json(row.confidence) if row.confidence else None,
            note,
        ),
    )
