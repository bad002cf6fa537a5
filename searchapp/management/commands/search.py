"""`manage.py search "QUERY" --collection SLUG`: the pipeline in a terminal, before and after."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from searchapp.engine import local, presence, remote
from searchapp.engine.sockets import EmbedSocket, RerankSocket
from searchapp.management.prepared import PreparedCommand
from searchapp.models import Collection
from searchapp.models.corpus import AnyUser
from searchapp.search import display, pipeline
from searchapp.search.filters import BadFilter
from searchapp.search.result import SearchResult

SNIPPET_COLUMNS = 160


class Command(PreparedCommand):
    help = "Searches a collection and shows the order before and after the rerank."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("query")
        parser.add_argument("--collection", required=True, metavar="SLUG")
        parser.add_argument("--instruction", help="replaces the collection's own for this search")
        parser.add_argument("--no-rerank", action="store_true")
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--limit", type=int, default=10, metavar="N")
        parser.add_argument("--user", metavar="NAME", help="search with this user's rights")

    def handle(self, *args: Any, **options: Any) -> None:
        user = _user(options["user"])
        collection = (
            Collection.objects.visible_to(user)
            .filter(slug=options["collection"])
            .select_related("active_config", "active_generation")
            .first()
        )
        if collection is None:
            raise CommandError(f"There is no collection {options['collection']!r}, or not for you.")
        embedder = embedder_for(collection)
        reranker = None if options["no_rerank"] else reranker_for(collection)
        try:
            result = pipeline.search(
                options["query"],
                collection,
                user=user,
                instruction=options["instruction"],
                embedder=embedder,
                reranker=reranker,
            )
        except (pipeline.BadQuery, BadFilter) as error:
            raise CommandError(str(error)) from error
        rows = display.rows(
            result.shown[: max(options["limit"], 0)], result.query, collection.language
        )
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(result, rows), ensure_ascii=False, indent=2))
        else:
            self._show(result, rows)

    def _show(self, result: SearchResult, rows: list[display.Row]) -> None:
        reranked = result.rerank.status == "ok"
        calibrated = "  calibrated" if result.is_calibrated else ""
        title = f"after before  relevance{calibrated}  found by" if reranked else "rank  found by"
        self.stdout.write(title)
        for row in rows:
            hit = row.hit
            legs = " and ".join(hit.found_by)
            if reranked:
                move = {"up": "▲", "down": "▼"}.get(row.direction, "=")
                moved = f"{move}{row.places}" if row.places else "="
                numbers = f"{_number(hit.relevance):>9}"
                if calibrated:
                    numbers += f"  {_number(hit.calibrated):>10}"
                head = f"{hit.rank:>5} {hit.first_stage_rank:>6}  {numbers}  {legs} {moved}"
            else:
                head = f"{hit.rank:>4}  {legs}"
            self.stdout.write(self.style.MIGRATE_HEADING(head))
            where = " › ".join([*row.trail, row.title])
            self.stdout.write(f"      {where}{f' ({row.pages})' if row.pages else ''}")
            snippet = "".join(part.text for part in row.snippet)[:SNIPPET_COLUMNS]
            self.stdout.write(f"      {snippet}")
        if not rows:
            self.stdout.write("Nothing found.")
        for name, leg in result.legs.items():
            if leg.status == "skipped":
                self.stdout.write(self.style.WARNING(f"{name} leg skipped: {leg.reason}"))
        self.stdout.write(_rerank_line(result))
        if result.confidence is not None:
            self.stdout.write(f"confidence {result.confidence:.2f} that the first hit is relevant")
        times = "  ".join(f"{name} {value:.1f}" for name, value in result.timings_ms.items())
        self.stdout.write(f"milliseconds: {times}")


# Without workers a model is loaded before the search begins, whose deadlines leave no time for it.
# If it cannot be, the socket says why.


def embedder_for(collection: Collection) -> EmbedSocket:
    if presence.is_served("embed"):
        return remote.embedder()
    if collection.active_generation is not None:
        with suppress(Exception):
            local.load_embedder(collection.active_generation.model)
    return local.embedder()


def reranker_for(collection: Collection) -> RerankSocket:
    if presence.is_served("gpu"):
        return remote.reranker()
    with suppress(Exception):
        local.scorer(pipeline.active_config(collection).model, collection.pk)
    return local.reranker()


def _user(name: str | None) -> AnyUser:
    if not name:
        return pipeline.operator()
    found = get_user_model().objects.filter(username=name).first()
    if found is None:
        raise CommandError(f"There is no user {name!r}.")
    return found


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _rerank_line(result: SearchResult) -> str:
    rerank = result.rerank
    if rerank.status != "ok":
        return f"rerank {rerank.status}: {rerank.reason}"
    return (
        f"reranked {rerank.pairs} passages by {rerank.model} on {rerank.device}, "
        f"{result.moved} of {len(result.shown)} moved"
    )


def _as_json(result: SearchResult, rows: list[display.Row]) -> dict[str, Any]:
    return {
        "query": result.query,
        "instruction": result.instruction,
        "config_version": result.config_version,
        "rerank": result.rerank.as_json(),
        "confidence": result.confidence,
        "legs": result.as_json()["legs"],
        "timings_ms": dict(result.timings_ms),
        "hits": [
            {
                "rank": row.hit.rank,
                "first_stage_rank": row.hit.first_stage_rank,
                "lexical_rank": row.hit.lexical_rank,
                "dense_rank": row.hit.dense_rank,
                "fused_score": row.hit.fused_score,
                "logit": row.hit.logit,
                "relevance": row.hit.relevance,
                "calibrated": row.hit.calibrated,
                "document": {
                    "uid": str(row.document_uid),
                    "title": row.document_title,
                    "path": row.path,
                },
                "passage": {
                    "id": row.hit.passage_id,
                    "ordinal": row.ordinal,
                    "pages": row.pages,
                    "text": row.text,
                },
            }
            for row in rows
        ],
    }
