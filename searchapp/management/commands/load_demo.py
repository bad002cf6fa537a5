"""`manage.py load_demo`: the two public demo collections."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from rerank.errors import RerankError
from searchapp.engine import presence
from searchapp.ingest import demo
from searchapp.ingest.embedding import embed_pending
from searchapp.management.prepared import PreparedCommand
from searchapp.models import Collection, PendingVector


class Command(PreparedCommand):
    help = "Loads the demo collections; a second run changes nothing but brings back deleted ones."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--no-vectors",
            action="store_true",
            help="index for words only; the embed worker writes the vectors when it comes",
        )

        parser.add_argument(
            "--leave-deleted",
            action="store_true",
            help="do not bring back a collection that was loaded before and deleted since",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for chosen in demo.DEMOS:
            if options["leave_deleted"] and demo.is_deleted(chosen):
                self._say(
                    f"{chosen.slug}: was deleted; `python manage.py load_demo` brings it back"
                )
                continue
            started = time.monotonic()
            loaded = demo.load(chosen, self._say)
            if loaded.documents:
                self._say(
                    f"{loaded.slug}: {loaded.documents:,} documents, {loaded.passages:,} passages "
                    f"searchable by words after {time.monotonic() - started:.0f} s"
                )
            else:
                self._say(f"{loaded.slug}: already there")
        if not options["no_vectors"]:
            self._embed()

    def _embed(self) -> None:
        slugs = [chosen.slug for chosen in demo.DEMOS]
        for collection in Collection.objects.filter(slug__in=slugs).order_by("-slug"):
            pending = PendingVector.objects.filter(generation__collection=collection).count()
            if not pending:
                continue
            if presence.is_served("embed"):
                self._say(f"{collection.slug}: the embed worker writes {pending:,} vectors")
                continue
            self._say(f"{collection.slug}: writing {pending:,} vectors here, no embed worker runs")
            try:
                embed_pending(collection_id=collection.pk)
            except RerankError as error:
                self.stderr.write(f"{collection.slug}: without vectors for now. {error}")
                return
            self._say(f"{collection.slug}: searchable by meaning")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
