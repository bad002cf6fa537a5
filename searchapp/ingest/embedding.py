"""The pump: passages that wait for their vectors get them, until none waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from django.db import transaction

from rerank.errors import RerankError
from rerank.types import FloatArray
from searchapp.engine import local
from searchapp.ingest.finishing import finish_indexed
from searchapp.ingest.queueing import embedding_begins, embedding_is_asked
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

# texts, model name -> unit vectors
EmbedDocuments = Callable[[Sequence[str], str], FloatArray]

_pumping = threading.Lock()
_wanted = threading.Event()


def pump() -> int:
    """Embeds everything pending, in one thread of this process at a time; vectors written.

    A call while another thread pumps returns 0 at once; that thread then looks once more, so that
    what was added between its last look and this call is not left behind.
    """
    written = 0
    _wanted.set()
    while _wanted.is_set():
        if not _pumping.acquire(blocking=False):
            return written
        try:
            _wanted.clear()
            written += embed_pending(give_way=_give_way)
        finally:
            _pumping.release()
    return written


def embed_pending(
    embed: EmbedDocuments = local.embed_documents,
    collection_id: int | None = None,
    on_progress: Callable[[int], None] = lambda written: None,
    give_way: Callable[[float], None] = lambda seconds: None,
) -> int:
    """Embeds what is pending (of one collection, if given) until nothing is; vectors written.

    Rows that another process has claimed are left to it. Raises RerankError when the model cannot
    be loaded or has failed for good; the rows then stay pending. `give_way` is called after each
    batch with the seconds it took.
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
        rows = PendingVector.objects.select_for_update(skip_locked=True, of=("self",))
        if collection_id is not None:
            rows = rows.filter(generation__collection_id=collection_id)
        pending = list(rows.select_related("generation").order_by("id")[:size])
        documents: set[int] = set()
        by_generation = sorted(pending, key=lambda row: row.generation_id)
        for _, group in groupby(by_generation, key=lambda row: row.generation_id):
            members = list(group)
            documents |= _embed_rows(
                embed, members[0].generation, [row.passage_id for row in members]
            )
        PendingVector.objects.filter(pk__in=[row.pk for row in pending]).delete()
    if documents:
        finish_indexed(sorted(documents))
    return len(pending)


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
