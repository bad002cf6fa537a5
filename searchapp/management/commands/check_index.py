"""`manage.py check_index COLLECTION`: the BM25 index against rank_bm25 on the stored passages."""

from __future__ import annotations

import random
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from searchapp.management.named import collection_named
from searchapp.management.prepared import PreparedCommand
from searchapp.search.checking import check_index


class Command(PreparedCommand):
    help = "Compares scores of the BM25 index with rank_bm25 over the collection's passages."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("collection", help="the collection's short name (slug)")
        parser.add_argument("--queries", type=int, default=20, help="how many, made of stored text")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        collection = collection_named(options["collection"])
        check = check_index(collection, options["queries"], random.Random(options["seed"]))
        for problem in check.problems:
            self.stdout.write(self.style.ERROR(problem))
        self.stdout.write(
            f"{check.passages:,} passages, {check.queries} queries, "
            f"{check.scores:,} scores compared, largest difference {check.largest:.2e}"
        )
        if check.problems:
            raise CommandError("The index does not agree with its passages: reindex them.")
        self.stdout.write(self.style.SUCCESS("The index agrees with rank_bm25."))
