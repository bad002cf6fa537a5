"""`manage.py import_documents COLLECTION PATH…`: files and folders into a collection."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.core.validators import validate_slug
from tqdm import tqdm

from rerank.errors import RerankError
from searchapp.engine import presence
from searchapp.ingest.control import sweep
from searchapp.ingest.inline import finish_here
from searchapp.ingest.progress import BatchProgress, batch_progress
from searchapp.ingest.receive import receive
from searchapp.management.prepared import PreparedCommand
from searchapp.models import Collection, UploadBatch, UploadState
from searchapp.models.corpus import AnyUser

_POLL_SECONDS = 0.5
_SHOWN_FAILURES = 100


class Command(PreparedCommand):
    help = "Imports files, folders and archives into a collection."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("collection", help="the collection's short name (slug)")
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
        parser.add_argument("--create", action="store_true", help="make the collection if missing")
        parser.add_argument("--language", default="en", help="of a created collection (en, de, …)")
        parser.add_argument("--user", help="the uploads' user, and owner of a created collection")
        parser.add_argument(
            "--here", action="store_true", help="do the work in this process, without workers"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = _user(options["user"])
        collection = _collection(options, user)
        missing = [str(path) for path in options["paths"] if not path.exists()]
        if missing:
            raise CommandError(f"There is no such file or folder: {', '.join(missing)}")
        here = options["here"] or not _workers_alive()
        started = time.monotonic()
        files = tqdm(_files(options["paths"]), desc="storing", unit=" files", disable=None)
        batch = receive(collection, files, user, enqueue=not here)
        try:
            _work(batch, here)
        except KeyboardInterrupt:
            words = "goes on with the next import" if here else "goes on in the workers"
            raise CommandError(f"Stopped watching; the import {words}.") from None
        except RerankError as error:
            raise CommandError(f"Indexed for words, but not for meaning: {error}") from error
        self._report(batch, time.monotonic() - started)

    def _report(self, batch: UploadBatch, seconds: float) -> None:
        told = batch.uploads.exclude(message="").order_by("id")
        for upload in told[:_SHOWN_FAILURES]:
            self.stdout.write(
                f"{upload.get_state_display().lower():<10} {upload.name}: {upload.message}"
            )
        progress = batch_progress(batch)
        states = progress.states
        parts = [f"{progress.files:,} files", f"{states[UploadState.READY]:,} ready"]
        parts += [
            f"{count:,} {state}" for state, count in states.items() if count and state != "ready"
        ]
        self.stdout.write(
            f"{', '.join(parts)}; {progress.documents:,} documents, "
            f"{progress.passages:,} passages in {seconds:.1f} s."
        )
        if states[UploadState.FAILED]:
            raise CommandError(
                f"{states[UploadState.FAILED]:,} of {progress.files:,} files failed."
            )


def _user(name: str | None) -> AnyUser:
    if name is None:
        return None
    user = get_user_model()._default_manager.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user {name!r}.")
    return user


def _collection(options: dict[str, Any], user: AnyUser) -> Collection:
    slug = options["collection"]
    collection = Collection.objects.filter(slug=slug).first()
    if collection is not None:
        return collection
    if not options["create"]:
        raise CommandError(f"There is no collection {slug!r}. Add --create to make it.")
    try:
        validate_slug(slug)
    except ValidationError as error:
        raise CommandError(
            f"{slug!r} cannot be a short name: letters, digits, - and _ only."
        ) from error
    name = slug.replace("-", " ").replace("_", " ").capitalize()
    return Collection.objects.create_with_owner(
        slug=slug, name=name, user=user, language=options["language"]
    )


def _files(paths: list[Path]) -> Iterator[tuple[str, Path]]:
    """(name in the collection, file): a folder's files keep its name in front. Hidden ones stay."""
    for path in paths:
        if path.is_file():
            yield path.name, path
            continue
        base = path.resolve()
        for file in sorted(base.rglob("*")):
            inner = file.relative_to(base)
            if file.is_file() and not any(part.startswith(".") for part in inner.parts):
                yield f"{base.name}/{inner.as_posix()}", file


def _workers_alive() -> bool:
    return presence.is_served("default") and presence.is_served("embed")


def _work(batch: UploadBatch, here: bool) -> None:
    with tqdm(total=1, desc="indexing", unit=" files", disable=None) as bar:
        if here:
            sweep()
            # Ours may be duplicates of what an earlier import, broken off, left waiting.
            for waiting in _unfinished(batch):
                finish_here(waiting, lambda: _show(bar, batch_progress(batch)))
        else:
            while not (progress := batch_progress(batch)).is_finished:
                _show(bar, progress)
                time.sleep(_POLL_SECONDS)
        _show(bar, batch_progress(batch))


def _unfinished(batch: UploadBatch) -> list[UploadBatch]:
    """Batches of the collection with files that wait, oldest first, and `batch` in any case."""
    waiting = UploadBatch.objects.filter(
        collection_id=batch.collection_id, paused=False, uploads__state=UploadState.RECEIVED
    )
    return [*waiting.exclude(pk=batch.pk).distinct().order_by("pk"), batch]


def _show(bar: Any, progress: BatchProgress) -> None:
    bar.total = progress.files
    bar.n = progress.files_finished
    facts = {"passages": progress.passages, "waiting for vectors": progress.vectors_pending}
    if progress.passages_per_second:
        facts["passages/s"] = round(progress.passages_per_second)
    if progress.seconds_left is not None:
        facts["seconds left"] = round(progress.seconds_left)
    bar.set_postfix(facts)
