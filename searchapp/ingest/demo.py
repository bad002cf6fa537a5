"""The demo collections: public, made from documentation that is on this machine anyway."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.migrations.recorder import MigrationRecorder

from searchapp.models import Collection, Document, Upload, UploadBatch, UploadState

from .demo_packages import PACKAGES, versions
from .extract.records import ExtractedDocument, from_json
from .finishing import settle
from .lease import Lease, claim
from .writing import DocumentWriter, delete_documents

# Raised when what the demo is made of changes, so that the next start makes it anew.
_EDITION = 1
_ROOT = Path(__file__).resolve().parents[2]
# In VAR_DIR: a line per collection ever begun, with the database that it is in.
_BEGUN = "demos_begun.txt"


@dataclass(frozen=True)
class Demo:
    """One demo collection. `module` prints its documents; `edition` names what they are made of."""

    slug: str
    name: str
    description: str
    module: str
    edition: Callable[[], str]
    queries: tuple[str, ...]


def _python_edition() -> str:
    return f"Python {platform.python_version()} documentation"


def _package_edition() -> str:
    found = versions()
    known = [(package.package, package.only, package.skip) for package in PACKAGES]
    facts = json.dumps([sorted(found.items()), known])
    return f"Docstrings of {len(found)} packages, {hashlib.sha256(facts.encode()).hexdigest()[:8]}"


DEMOS = (
    Demo(
        "python-docs",
        "Python documentation",
        "The Python language reference and the docstrings of the standard library, as they ship "
        "inside the interpreter.",
        "searchapp.ingest.demo_python",
        _python_edition,
        (
            "how do I catch several exceptions in one clause",
            "join path components safely",
            "run a function in a pool of worker processes",
            "what does the yield expression return",
            "difference between shallow and deep copy",
            "parse a date written as text",
        ),
    ),
    Demo(
        "package-docs",
        "Package documentation",
        "Docstrings of the packages installed beside Podium: Django, numpy, transformers, "
        "Celery and others, read from their source.",
        "searchapp.ingest.demo_packages",
        _package_edition,
        (
            "add a computed column to every row of a query",
            "retry a task after it failed",
            "stop text generation at a given string",
            "encode sentences into vectors with several processes",
            "solve a system of linear equations",
            "keep a user logged in after the browser is closed",
        ),
    ),
)


@dataclass(frozen=True)
class Loaded:
    """What became of one demo collection: `documents` 0 when it was there already."""

    slug: str
    documents: int
    passages: int


def load(demo: Demo, say: Callable[[str], None] = lambda line: None) -> Loaded:
    """Makes the collection searchable by words; vectors are left pending for the embedder.

    A second run finds its own edition and changes nothing. A run that was broken off goes on.
    """
    collection = _collection(demo)
    upload = _upload(collection, demo)
    lease = None
    if upload.state not in {UploadState.INDEXING, UploadState.READY}:
        lease = _taken(upload)
    if lease is None:
        return Loaded(demo.slug, 0, 0)
    writer = DocumentWriter(lease)
    for count, document in enumerate(_documents(demo), start=1):
        lease.heartbeat()
        writer.add(document)
        if not count % 1000:
            say(f"{demo.slug}: {writer.documents:,} documents so far")
    writer.flush()
    _forget_older_editions(upload)
    lease.release(UploadState.INDEXING, media_type="text/plain")
    settle([upload.pk])
    upload.refresh_from_db()
    return Loaded(demo.slug, upload.documents_done, upload.passages_done)


def is_deleted(demo: Demo) -> bool:
    """Whether the collection was in this database once and is not any more. False where VAR_DIR
    was emptied since, or the database begun anew."""
    return _line(demo) in _lines_begun() and not Collection.objects.filter(slug=demo.slug).exists()


def _collection(demo: Demo) -> Collection:
    found = Collection.objects.filter(slug=demo.slug).first()
    if found is None:
        found = Collection.objects.create_with_owner(
            slug=demo.slug,
            name=demo.name,
            description=demo.description,
            is_public=True,
            suggested_queries=list(demo.queries),
        )
    _remember_begun(demo)
    return found


def _remember_begun(demo: Demo) -> None:
    """At its beginning: one deleted while it is half loaded shall not come back either."""
    if _line(demo) in _lines_begun():
        return
    # Where nothing can be written a deleted demo comes back, which is no reason to load none.
    with suppress(OSError), _begun_file().open("a", encoding="utf-8") as file:
        file.write(f"{_line(demo)}\n")


def _lines_begun() -> list[str]:
    try:
        return _begun_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _line(demo: Demo) -> str:
    """Names the database by when its tables were made, which its copies keep."""
    first = MigrationRecorder.Migration.objects.order_by("id").first()
    return f"{demo.slug} {first.applied.isoformat() if first else ''}"


def _begun_file() -> Path:
    return Path(settings.VAR_DIR) / _BEGUN


def _upload(collection: Collection, demo: Demo) -> Upload:
    """The row that stands for this edition; its file is empty because nobody uploaded one."""
    name = f"{demo.edition()}, edition {_EDITION}"
    with transaction.atomic():
        Collection.objects.select_for_update().get(pk=collection.pk)
        found = Upload.objects.filter(collection=collection, name=name, file="").first()
        if found is not None:
            return found
        batch = UploadBatch.objects.create(collection=collection)
        # Born failed and retryable: no worker may pick it up, only `_taken` below.
        return Upload.objects.create(
            batch=batch, collection=collection, name=name, size_bytes=0, state=UploadState.FAILED
        )


def _taken(upload: Upload) -> Lease | None:
    """The lease on the row, or None when another process is loading it right now."""
    ends = [UploadState.FAILED, UploadState.CANCELLED, UploadState.RECEIVED]
    Upload.objects.filter(pk=upload.pk, state__in=ends).update(state=UploadState.RECEIVED)
    return claim(upload.pk)


def _forget_older_editions(upload: Upload) -> None:
    """Documents of an earlier edition that this one does not have."""
    older = Document.objects.filter(collection_id=upload.collection_id, upload__file="").exclude(
        upload=upload
    )
    delete_documents(older.values_list("pk", flat=True))


def _documents(demo: Demo) -> Iterator[ExtractedDocument]:
    with _child(demo.module) as lines:
        for line in lines:
            item = from_json(json.loads(line))
            if isinstance(item, ExtractedDocument):
                yield item


@contextmanager
def _child(module: str) -> Iterator[Iterator[bytes]]:
    """The lines the module prints, run from an empty folder so that it leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="podium-demo-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin", "HOME": folder},
        )
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
            if process.wait() != 0:
                raise RuntimeError(f"{module} ended with exit code {process.returncode}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
