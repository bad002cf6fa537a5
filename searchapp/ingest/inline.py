"""A whole batch in this process, for commands that must not depend on workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from django.db import connections

from searchapp.models import PendingVector, UploadBatch, UploadState
from searchapp.models.uploads import OPEN_STATES

from .control import sweep
from .embedding import embed_pending
from .extract.running import stop_idle
from .pipeline import ingest

_PAUSE_SECONDS = 0.2


def finish_here(
    batch: UploadBatch,
    on_progress: Callable[[], None] = lambda: None,
    *,
    with_vectors: bool = True,
) -> None:
    """Reads, indexes and (in a second thread, meanwhile) embeds everything in the batch.

    `on_progress` is called after each file and each batch of vectors, from either thread. Raises
    RerankError when the embedder cannot be loaded; what is indexed by then stays.
    """
    embedder = _Embedder(batch.collection_id, on_progress) if with_vectors else None
    try:
        _read_all(batch, on_progress)
        if embedder is not None:
            embedder.finish()
            _wait_for_others(batch, on_progress)
    finally:
        if embedder is not None:
            embedder.stop()
        stop_idle()


def _read_all(batch: UploadBatch, on_progress: Callable[[], None]) -> None:
    waiting = batch.uploads.filter(state=UploadState.RECEIVED).order_by("id")
    while ids := list(waiting.values_list("pk", flat=True)):
        outcomes = [_read(upload_id, on_progress) for upload_id in ids]
        if all(outcome in {"busy", "paused"} for outcome in outcomes):
            return


def _read(upload_id: int, on_progress: Callable[[], None]) -> str:
    outcome = ingest(upload_id, enqueue_members=False)
    on_progress()
    return outcome


def _wait_for_others(batch: UploadBatch, on_progress: Callable[[], None]) -> None:
    """Rows that a worker had claimed meanwhile are finished by it, or here when it died."""
    while batch.uploads.filter(state__in=OPEN_STATES, batch__paused=False).exists():
        sweep()
        _read_all(batch, on_progress)
        if embed_pending(collection_id=batch.collection_id) == 0:
            time.sleep(_PAUSE_SECONDS)


class _Embedder:
    """Embeds what one collection has pending, in a thread, until told that no more will come."""

    def __init__(self, collection_id: int, on_progress: Callable[[], None]) -> None:
        self._collection_id = collection_id
        self._on_progress = on_progress
        self._no_more = threading.Event()
        self._abandoned = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Waits until everything pending is embedded. Raises what the embedder raised."""
        self._no_more.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._abandoned = True
        self._no_more.set()

    def _run(self) -> None:
        try:
            while not self._abandoned:
                last_look = self._no_more.is_set()
                embed_pending(
                    collection_id=self._collection_id, on_progress=lambda _: self._on_progress()
                )
                if last_look or self._abandoned:
                    return
                self._wait_for_work()
        except BaseException as error:
            self._error = error
        finally:
            connections.close_all()

    def _wait_for_work(self) -> None:
        pending = PendingVector.objects.filter(generation__collection_id=self._collection_id)
        while not self._no_more.wait(_PAUSE_SECONDS) and not pending.exists():
            pass
