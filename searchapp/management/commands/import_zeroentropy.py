"""`manage.py import_zeroentropy --base-url … --key …`: collections from a server that speaks the
ZeroEntropy contract, a Podium included."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from contextlib import closing
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db.models import Q
from tqdm import tqdm

from rerank.errors import RerankError
from searchapp.engine import presence
from searchapp.ingest import moving
from searchapp.ingest.embedding import embed_pending
from searchapp.ingest.moving import COPIED, FAILED, KEPT, REPLACED, UNREAD, Copy
from searchapp.ingest.zeroentropy import Source, SourceFailed
from searchapp.management.prepared import PreparedCommand
from searchapp.models import Collection, Document, DocumentStatus, PendingVector, Role
from searchapp.models.corpus import LANGUAGES, AnyUser, free_slug

_POLL_SECONDS = 0.5
# Nothing got its vectors for so long: the worker is stuck, and waiting helps no more.
_PATIENCE_SECONDS = 300.0


class Command(PreparedCommand):
    help = (
        "Copies collections with their documents' texts, pages and metadata from a server that "
        "speaks the ZeroEntropy contract. Run it again to go on after a break: documents whose "
        "path is taken are kept as they are."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--base-url", default=os.environ.get("ZEROENTROPY_BASE_URL"),
            help="with its /v1; default: ZEROENTROPY_BASE_URL",
        )  # fmt: skip
        parser.add_argument("--key", help="default: ZEROENTROPY_API_KEY, which no list shows")
        parser.add_argument(
            "--collection", action="append", metavar="NAME", help="only this one; may be repeated"
        )
        parser.add_argument("--into", metavar="NAME", help="what the one collection is called here")
        parser.add_argument(
            "--language", default="en", choices=dict(LANGUAGES), help="of created collections"
        )
        parser.add_argument("--user", help="the owner of created collections")
        parser.add_argument(
            "--overwrite", action="store_true", help="replace documents whose path is taken"
        )
        parser.add_argument(
            "--no-wait", action="store_true", help="end before the documents have their vectors"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = _user(options["user"])
        key = (options["key"] or os.environ.get("ZEROENTROPY_API_KEY", "")).strip()
        if not options["base_url"] or not key.isascii() or not key:
            raise CommandError("Name the server with --base-url and its key with --key.")
        if options["into"] and len(options["collection"] or []) != 1:
            raise CommandError("--into goes with exactly one --collection.")
        failed = 0
        try:
            with closing(Source(options["base_url"], key)) as source:
                there = source.collections()
                wanted = options["collection"] or there
                if missing := [name for name in wanted if name not in there]:
                    raise CommandError(f"There is no collection {missing[0]!r} at that server.")
                for name in wanted:
                    failed += self._copy(source, name, user, options)
        except SourceFailed as error:
            raise CommandError(f"{error} Run the command again to go on.") from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. Run the command again to go on.") from None
        if failed:
            raise CommandError(f"{failed:,} documents were not copied.")

    def _copy(self, source: Source, name: str, user: AnyUser, options: dict[str, Any]) -> int:
        """How many documents could not be copied."""
        target = _target(options["into"] or name, user, options["language"])
        started = time.monotonic()
        with tqdm(total=source.count(name), desc=name[:40], unit=" documents", disable=None) as bar:

            def show(made: Copy) -> None:
                bar.update(made.seen - bar.n)

            made = moving.copy(
                source, name, target, overwrite=options["overwrite"], on_progress=show
            )
        seconds = time.monotonic() - started
        for path, why in made.told:
            self.stdout.write(f"{path}: {why}")
        count = made.counts
        written = count[COPIED] + count[REPLACED]
        parts = [f"{count[COPIED]:,} copied"]
        parts += [f"{count[each]:,} {each}" for each in (REPLACED, KEPT) if count[each]]
        parts += [f"{count[UNREAD]:,} not read there"] if count[UNREAD] else []
        parts += [f"{count[FAILED]:,} failed"] if count[FAILED] else []
        rate = f"{written / max(seconds, 1e-9):.0f} documents/s"
        self.stdout.write(
            f"{name} → {target.slug}: {', '.join(parts)} in {seconds:.1f} s ({rate})."
        )
        if not options["no_wait"]:
            self._wait(target)
        return count[FAILED]

    def _wait(self, target: Collection) -> None:
        waiting = Document.objects.filter(collection=target, status=DocumentStatus.INDEXING)
        total = left = waiting.count()
        if not total:
            return
        # A long document is many passages, and a busy worker takes its time for each.
        passages = PendingVector.objects.filter(generation__collection=target)
        with tqdm(total=total, desc="indexing", unit=" documents", disable=None) as bar:
            moved_at, pending = time.monotonic(), passages.count()
            while left:
                if presence.is_served("embed"):
                    time.sleep(_POLL_SECONDS)
                else:
                    _embed_here(target)
                before, left = (left, pending), waiting.count()
                pending = passages.count()
                bar.update(total - left - bar.n)
                if left < before[0] or pending < before[1]:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > _PATIENCE_SECONDS:
                    raise CommandError(f"{left:,} documents still wait for their vectors.")
        self.stdout.write(f"{total:,} documents indexed.")


def _embed_here(target: Collection) -> None:
    try:
        if embed_pending(collection_id=target.pk) == 0:
            time.sleep(_POLL_SECONDS)
    except RerankError as error:
        raise CommandError(f"Indexed for words, but not for meaning: {error}") from error


def _user(name: str | None) -> AnyUser:
    if name is None:
        return None
    user = get_user_model()._default_manager.filter(username=name, is_active=True).first()
    if user is None:
        raise CommandError(f"There is no active account named {name!r}.")
    return user


def _target(name: str, user: AnyUser, language: str) -> Collection:
    """The collection of this name that the user may change, or a new one of theirs."""
    if not name or len(name.encode()) > 1024 or "\0" in name:
        raise CommandError("A collection's name has 1 to 1024 bytes: choose one with --into.")
    rows = Collection.objects.filter(Q(api_name=name) | Q(api_name="", slug=name))
    if user is not None:
        rows = rows.with_role(user, Role.EDITOR)
    found = list(rows.order_by("pk")[:2])
    if len(found) > 1:
        raise CommandError(
            f"There are several collections {name!r}: say with --user NAME whose is meant."
        )
    if found:
        return found[0]
    slug = free_slug(name)
    return Collection.objects.create_with_owner(
        slug=slug,
        name=" ".join(name.split())[:200] or slug,
        api_name="" if slug == name else name,
        user=user,
        language=language,
    )
