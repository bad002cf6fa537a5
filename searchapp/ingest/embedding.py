"""The pump: passages that wait for their vectors get them, until none waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from django.db import connection, transaction

from rerank.errors import RerankError
from rerank.types import FloatArray
from searchapp.engine import local
from searchapp.ingest.finishing import finish_indexed
from searchapp.ingest.queueing import embedding_begins, embedding_is_asked, kick_embedding
from searchapp.models import Generation, Passage, PendingVector
from searchapp.models.corpus import compose_indexed_text
from searchapp.search.vectors import write_vectors

logger = logging.getLogger(__name__)

# Rows are claimed, embedded and written in one transaction. Replacing or deleting one of these
# passages waits that long, and a killed worker repeats no more than that. So a batch is as large as
# this machine embeds in about so many seconds, within bounds.
BATCH_SECONDS = 0.5
FIRST_BATCH = 16
LEAST_BATCH, MOST_BATCH = 8, 256
# While more passages come: so many times a batch's own time is left to others after it.
WAY = 2.0
LONGEST_WAY = 1.0

# So long one message keeps the pump at work. A worker that ends waits for what it has in hand, and
# while it ends nobody embeds queries.
ROUND_SECONDS = 20.0

# texts, model name -> unit vectors
EmbedDocuments = Callable[[Sequence[str], str], FloatArray]


@dataclass
class _Turn:
    """The generation that had its turn last. Of this process: several workers take turns each by
    itself, for the rows one has claimed are passed over by the others."""

    generation_id: int = 0


_pumping = threading.Lock()
_wanted = threading.Event()
_turn = _Turn()


def pump(stopped: Callable[[], bool] = lambda: False, seconds: float = ROUND_SECONDS) -> int:
    """A round of embedding what is pending, in one thread of this process at a time; vectors
    written.

    It ends after about `seconds`, and asks for another by a message of its own, or as soon as
    `stopped`, and leaves the rest to the worker that begins next or to the sweep. A call while
    another thread pumps returns 0 at once; that thread then looks once more, so that what was added
    between its last look and this call is not left behind.
    """
    until = time.monotonic() + seconds

    def enough() -> bool:
        return stopped() or time.monotonic() >= until

    written = 0
    _wanted.set()
    while _wanted.is_set():
        if not _pumping.acquire(blocking=False):
            return written
        try:
            _wanted.clear()
            written += embed_pending(give_way=_give_way, enough=enough)
        finally:
            _pumping.release()
        if enough():
            if not stopped():
                embedding_begins()  # another thread may have taken the message of the mark
                kick_embedding()
            return written
    return written


def embed_pending(
    embed: EmbedDocuments = local.embed_documents,
    collection_id: int | None = None,
    on_progress: Callable[[int], None] = lambda written: None,
    give_way: Callable[[float], None] = lambda seconds: None,
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """Embeds what is pending (of one collection, if given) until nothing is; vectors written.

    Rows that another process has claimed are left to it. Raises RerankError when the model cannot
    be loaded or has failed for good; the rows then stay pending. `give_way` is called after each
    batch with the seconds it took; then it ends if that is `enough`.
    """
    total, size = 0, FIRST_BATCH
    embedding_begins()
    while True:
        began = time.monotonic()
        claimed = _embed_batch(embed, collection_id, size)
        if not claimed:
            return total
        took = time.monotonic() - began
        total += claimed
        on_progress(total)
        give_way(took)
        if enough():
            return total
        embedding_begins(once_more=True)
        size = _next_size(claimed, took)


def _give_way(seconds: float) -> None:
    """While more passages come, whoever brings them has most of the processor: their callers wait,
    and nobody waits for vectors that long."""
    if embedding_is_asked():
        time.sleep(min(WAY * seconds, LONGEST_WAY))


def _next_size(rows: int, seconds: float) -> int:
    """At most twice what there was: few rows may have been quick by chance."""
    fitting = int(rows * BATCH_SECONDS / max(seconds, 1e-3))
    return max(LEAST_BATCH, min(fitting, 2 * rows, MOST_BATCH))


def _embed_batch(embed: EmbedDocuments, collection_id: int | None, size: int) -> int:
    """Rows dealt with: 0 when none was free."""
    with transaction.atomic():
        pending = _claim(collection_id, size)
        generations = Generation.objects.in_bulk({row.generation_id for row in pending})
        documents: set[int] = set()
        by_generation = sorted(pending, key=lambda row: row.generation_id)
        for generation_id, group in groupby(by_generation, key=lambda row: row.generation_id):
            members = [row.passage_id for row in group]
            documents |= _embed_rows(embed, generations[generation_id], members)
        PendingVector.objects.filter(pk__in=[row.pk for row in pending]).delete()
    if documents:
        finish_indexed(sorted(documents))
    return len(pending)


def _claim(collection_id: int | None, size: int) -> list[PendingVector]:
    """Up to `size` free rows, locked: of the generation whose turn it is, and of those after it
    while there is room. Within a generation, in order of passages.

    Generations take turns because then a few passages wait for a batch of each backlog before
    theirs and not for whole backlogs, and a large backlog gets its turn however many small ones
    come. The smallest backlog first would mean to count them all for every batch, and a stream of
    small ones would starve the large one. Turns need no counting: the index of `one_pending_vector`
    is read on from where the last batch ended, and from its beginning when its end is reached.
    """
    rows = PendingVector.objects.select_for_update(skip_locked=True)
    if collection_id is not None:
        own = Generation.objects.filter(collection_id=collection_id).values_list("pk", flat=True)
        rows = rows.filter(generation_id__in=list(own))
    rows = rows.order_by("generation_id", "passage_id")
    _read_in_order_of_the_index()
    last = _turn.generation_id
    claimed = list(rows.filter(generation_id__gt=last)[:size])
    if len(claimed) < size:
        claimed += rows.filter(generation_id__lte=last)[: size - len(claimed)]
    if claimed:
        _turn.generation_id = claimed[-1].generation_id
    return claimed


def _read_in_order_of_the_index() -> None:
    """In this transaction. A generation that is newer than the table's statistics counts as empty;
    to find its first rows it would be read and sorted whole."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('enable_sort', 'off', true), "
            "set_config('enable_incremental_sort', 'off', true)"
        )


def _embed_rows(embed: EmbedDocuments, generation: Generation, passage_ids: list[int]) -> set[int]:
    """Writes the vectors of these passages; the ids of their documents."""
    passages = list(
        Passage.objects.filter(pk__in=passage_ids).values_list(
            "pk", "document_id", "document__title", "heading_path", "text"
        )
    )
    texts = [
        generation.document_prefix + compose_indexed_text(title, headings, text)
        for _, _, title, headings, text in passages
    ]
    vectors = _embed_all(lambda some: embed(some, generation.model), texts)
    good = np.isfinite(vectors).all(axis=1) & (np.abs(vectors).sum(axis=1) > 0)
    ids = [passage[0] for passage in passages]
    for passage_id in (ids[place] for place in np.flatnonzero(~good)):
        logger.error("passage %d has no vector: it could not be embedded", passage_id)
    kept = np.flatnonzero(good)
    if len(kept):
        write_vectors(generation, [ids[place] for place in kept], vectors[kept])
    return {passage[1] for passage in passages}


def _embed_all(embed: Callable[[list[str]], FloatArray], texts: list[str]) -> FloatArray:
    """One row per text, NaN for a text that fails by itself: it must not stop the others.

    Raises what `embed` raised when even a harmless text fails, which means the model is broken.
    """
    try:
        return embed(texts)
    except RerankError:
        raise
    except Exception:
        logger.exception("embedding %d passages failed", len(texts))
        if len(texts) > 1:
            middle = len(texts) // 2
            halves = [_embed_all(embed, texts[:middle]), _embed_all(embed, texts[middle:])]
            return np.concatenate(halves)
        probe = embed(["a harmless text"])
        return np.full_like(probe, np.nan)
