"""`manage.py train COLLECTION`: asks the training worker for a reranker of the collection's own."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import OperationalError, connection
from tqdm import tqdm

from rerank.inference.models import UNTRAINED
from searchapp.engine import presence
from searchapp.management.named import collection_named
from searchapp.management.prepared import PreparedCommand
from searchapp.models import Checkpoint, TrainingJob, TrainingState
from searchapp.search.pipeline import operator
from searchapp.training import jobs, registry
from searchapp.training.asked import DEFAULT_EPOCHS, DEFAULT_LOSS, LOSSES, METHODS, Asked
from searchapp.training.comparison import ACTIVE, HYBRID, TRAINED

_LOOK_SECONDS = 0.5
# So long a database may be away before a command that waits gives up.
_AWAY_SECONDS = 60.0


class Command(PreparedCommand):
    help = (
        "Trains a reranker on the collection's judged queries. It runs on the training worker; "
        "what comes out is compared, and activated on the collection's training page."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("collection", help="the collection's short name (slug)")
        parser.add_argument(
            "--base",
            default=UNTRAINED,
            help='a model\'s name or directory, or checkpoint:NUMBER of the collection; "": the '
            "built-in embedder's body with a new head; by default the built-in reranker",
        )
        parser.add_argument("--method", choices=list(METHODS), default="full")
        parser.add_argument("--loss", choices=list(LOSSES), default=DEFAULT_LOSS)
        parser.add_argument("--epochs", type=int, default=DEFAULT_EPOCHS)
        parser.add_argument("--rate", type=float, default=0.0, help="0: the usual learning rate")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument(
            "--unjudged",
            choices=["skip", "irrelevant"],
            default="skip",
            help="candidates without a judgment: left out, or counted as not relevant (right where "
            "the judgments name every relevant document, as evaluation sets claim)",
        )
        parser.add_argument(
            "--searches",
            action="store_true",
            help="learn from logged searches too, where the collection's settings allow it",
        )
        parser.add_argument(
            "--wait", action="store_true", help="show the progress until the end; Ctrl-C cancels"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        collection = collection_named(options["collection"])
        asked = Asked(
            base=_base(options["base"]),
            method=options["method"],
            loss=options["loss"],
            epochs=options["epochs"],
            seed=options["seed"],
            rate=options["rate"],
            unjudged=options["unjudged"] == "irrelevant",
            searches=options["searches"],
        )
        job = jobs.request_training(collection, operator(), asked)
        if isinstance(job, str):
            raise CommandError(job)
        if not presence.is_served(jobs.QUEUE):
            self.stderr.write(
                "No training worker is running; the training begins when one does (manage.py up "
                "starts one)."
            )
        if not options["wait"]:
            self.stdout.write(
                f"Training {job.pk} of {collection.name} is asked for. Its page shows how far it "
                f"is: /collections/{collection.slug}/training/"
            )
            return
        try:
            self._follow(job)
        except KeyboardInterrupt:
            jobs.cancel(job)
            raise CommandError("Cancelled; nothing is changed.") from None
        self._report(job)

    def _follow(self, job: TrainingJob) -> None:
        bar: Any = None
        stage = ""
        try:
            while job.is_open:
                if job.stage != stage:
                    stage = job.stage
                    if bar is not None:
                        bar.close()
                    # disable=None: silent where nobody sits at a terminal.
                    bar = tqdm(total=0, desc=stage, unit="", disable=None) if stage else None
                if bar is not None and job.total:
                    bar.total = job.total
                    bar.update(job.done - bar.n)
                    bar.set_postfix_str(_quality(job))
                time.sleep(_LOOK_SECONDS)
                _look(job)
        finally:
            if bar is not None:
                bar.close()

    def _report(self, job: TrainingJob) -> None:
        if job.state != TrainingState.DONE:
            raise CommandError(job.message or "The training was cancelled.")
        checkpoint = Checkpoint.objects.get(job=job)
        systems = checkpoint.comparison.get("systems", {})
        if systems:
            self.stdout.write(
                f"{'':<24}{'nDCG@10':>9}{'MRR@10':>9}{'checkpoint minus it, 95 %':>34}"
            )
        names = {
            HYBRID: "the first stage alone",
            ACTIVE: f"version {checkpoint.comparison.get('config_version')}",
            TRAINED: f"checkpoint {checkpoint.pk}",
        }
        for name, figures in systems.items():
            gap = checkpoint.comparison["differences"].get(name)
            minus = ""
            if gap:
                minus = f"{gap['difference']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"
            self.stdout.write(
                f"{names[name]:<24}{figures['ndcg']:>9.3f}{figures['mrr']:>9.3f}{minus:>34}"
            )
        if systems:
            self.stdout.write(f"{checkpoint.comparison['queries']} held-out queries.")
        slug = job.collection.slug
        decided = registry.verdict(checkpoint)
        if decided.may:
            self.stdout.write(
                f"Checkpoint {checkpoint.pk} waits for a decision: /collections/{slug}/training/"
            )
        else:
            self.stdout.write(self.style.WARNING(" ".join(decided.reasons)))


def _look(job: TrainingJob) -> None:
    """Reads the job anew, through a restart of the database too: the worker goes on after one."""
    until = time.monotonic() + _AWAY_SECONDS
    while True:
        try:
            return job.refresh_from_db()
        except TrainingJob.DoesNotExist:
            raise CommandError("The collection was deleted meanwhile.") from None
        except OperationalError:
            if time.monotonic() > until:
                raise CommandError(
                    "The database does not answer. The training goes on when it does; its page "
                    "shows how far it is."
                ) from None
            connection.close()
            time.sleep(_LOOK_SECONDS)


def _base(name: str) -> str:
    """The worker may have another working directory."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name


def _quality(job: TrainingJob) -> str:
    """The newest loss and nDCG@10."""
    by_name: dict[str, list[list[float]]] = next(reversed(job.points.values()), {})
    newest = [f"{name} {curve[-1][1]:.3f}" for name, curve in by_name.items() if curve]
    return ", ".join(newest)
