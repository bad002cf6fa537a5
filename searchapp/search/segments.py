"""Writing the BM25 index: segments are added, passages deleted, small segments merged.

Locks: adding takes none. Deleting and the last moment of a merge exclude each other per collection
(`_lock_deletions`), because a merge replaces the very bitmaps a delete sets. A collection has one
merge at a time (`_try_lock_merging`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from django.db import connection, transaction
from django.utils import timezone
from numpy.typing import NDArray

from rerank.ranking.analysis import terms
from searchapp.models import Collection, Segment

from .packing import (
    COPY_END,
    COPY_START,
    PackedTerms,
    copy_rows,
    merge_postings,
    pack_flags,
    pack_terms,
    unpack_flags,
)

# Fewer segments than this cost a search next to nothing.
MERGE_AT_SEGMENTS = 4
# A segment joins a merge when it is at most so many times as large as all smaller ones together.
MERGE_GROWTH = 4
# A segment with a larger share of deleted passages is rewritten.
MERGE_DELETED_SHARE = 0.25
MERGE_BATCH_ROWS = 20_000

_DELETING, _MERGING = 7_101, 7_102

_NEW_SEGMENT = """
INSERT INTO searchapp_segment
  (collection_id, passage_count, passage_ids, lengths, deleted, deleted_count, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)
RETURNING id
"""


def index_passages(collection: Collection, passages: Sequence[tuple[int, str]]) -> Segment | None:
    """Adds (passage id, indexed text) pairs as one segment, in the caller's transaction.

    The ids must not be live in the index: a changed text is `delete_passages`, then this. None when
    there are no passages.
    """
    if not passages:
        return None
    ordered = sorted(passages)
    analysed = [terms(text, collection.language) for _, text in ordered]
    with transaction.atomic(savepoint=False):
        segment = _new_segment(
            collection.pk,
            np.array([passage_id for passage_id, _ in ordered], "<i8"),
            np.array([len(found) for found in analysed], "<u4"),
        )
        _copy_postings([pack_terms(analysed)], segment)
    return segment


def delete_passages(collection: Collection, passage_ids: Iterable[int]) -> int:
    """Takes passages out of the index at once, in the caller's transaction; how many were in it.

    Only marks them: a merge drops them later. Until the caller commits, other deletes in the
    collection wait.
    """
    wanted = np.array(sorted(set(passage_ids)), "<i8")
    if not len(wanted):
        return 0
    found = 0
    with transaction.atomic(savepoint=False):
        _lock_deletions(collection.pk)
        for segment in Segment.objects.select_for_update().filter(collection_id=collection.pk):
            flags = unpack_flags(bytes(segment.deleted), segment.passage_count)
            newly = np.isin(passage_ids_of(segment), wanted) & ~flags
            if not newly.any():
                continue
            found += int(newly.sum())
            flags |= newly
            segment.deleted, segment.deleted_count = pack_flags(flags), int(flags.sum())
            segment.save(update_fields=["deleted", "deleted_count"])
    return found


def merge_segments(collection: Collection, *, everything: bool = False) -> Segment | None:
    """Replaces small or much deleted segments by one, without their deleted passages.

    Inserts go on meanwhile; a search sees the old segments or the new one. None when there is
    nothing to merge, another merge runs, or nothing is left alive. `everything` merges all segments
    there are.
    """
    with transaction.atomic():
        if not _try_lock_merging(collection.pk):
            return None
        segments = list(Segment.objects.filter(collection_id=collection.pk).order_by("pk"))
        chosen = segments if everything else _worth_merging(segments)
        if not chosen or (len(chosen) == 1 and not chosen[0].deleted_count):
            return None
        plan = _plan(chosen)
        merged = _new_segment(collection.pk, plan.passage_ids, plan.lengths)
        _copy_merged(collection.pk, chosen, plan, merged)
        _lock_deletions(collection.pk)
        deleted_meanwhile = _deleted_since(chosen, plan)
        if deleted_meanwhile is None:  # the collection was erased meanwhile
            transaction.set_rollback(True)
            return None
        if deleted_meanwhile.any():
            merged.deleted = pack_flags(deleted_meanwhile)
            merged.deleted_count = int(deleted_meanwhile.sum())
            merged.save(update_fields=["deleted", "deleted_count"])
        drop_segments([segment.pk for segment in chosen])
        if not merged.passage_count:
            drop_segments([merged.pk])
            return None
    return merged


def merge_all_segments() -> int:
    """Merges wherever it is worth it, until it is not; how many merges."""
    done = 0
    for collection in Collection.objects.filter(segments__isnull=False).distinct():
        while merge_segments(collection):
            done += 1
    return done


def _new_segment(
    collection_id: int, passage_ids: NDArray[np.int64], lengths: NDArray[np.uint32]
) -> Segment:
    """A row without postings yet. By SQL of our own: each document that a program adds comes here,
    and composing the statement costs more than running it."""
    values: dict[str, Any] = {
        "collection_id": collection_id,
        "passage_count": len(passage_ids),
        "passage_ids": passage_ids.tobytes(),
        "lengths": lengths.tobytes(),
        "deleted": b"",
        "deleted_count": 0,
        "created_at": timezone.now(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_NEW_SEGMENT, list(values.values()))
        (segment_id,) = cursor.fetchall()[0]
    return Segment.from_db(connection.alias, ["id", *values], [segment_id, *values.values()])


def drop_segments(segment_ids: Sequence[int]) -> None:
    """Deletes segments and their postings."""
    with connection.cursor() as cursor:
        ids = list(segment_ids)
        cursor.execute("DELETE FROM searchapp_posting WHERE segment_id = ANY(%s)", [ids])
        cursor.execute("DELETE FROM searchapp_segment WHERE id = ANY(%s)", [ids])


def passage_ids_of(segment: Segment) -> NDArray[np.int64]:
    """The ids by local ordinal, ascending."""
    return np.frombuffer(bytes(segment.passage_ids), "<i8")


# --- merging -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """The merged segment's arrays, and for each old segment the new ordinals (-1: left behind)."""

    passage_ids: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    places: dict[int, NDArray[np.int64]]


def _worth_merging(segments: Sequence[Segment]) -> list[Segment]:
    """The small ones up to a jump in size, if they are many, and all with many deleted passages.

    The rule keeps the number of segments logarithmic and rewrites a passage a logarithmic number of
    times.
    """
    small: list[Segment] = []
    total = 0
    for segment in sorted(segments, key=_live_count):
        if len(small) > 1 and _live_count(segment) > MERGE_GROWTH * max(total, 1):
            break
        small.append(segment)
        total += _live_count(segment)
    chosen = {segment.pk for segment in small} if len(small) >= MERGE_AT_SEGMENTS else set()
    return [
        segment
        for segment in segments
        if segment.pk in chosen
        or segment.deleted_count > MERGE_DELETED_SHARE * segment.passage_count
    ]


def _live_count(segment: Segment) -> int:
    return segment.passage_count - segment.deleted_count


def _plan(chosen: Sequence[Segment]) -> _Plan:
    ids = [passage_ids_of(segment) for segment in chosen]
    lengths = [np.frombuffer(bytes(segment.lengths), "<u4") for segment in chosen]
    live = [~unpack_flags(bytes(each.deleted), each.passage_count) for each in chosen]
    all_ids = np.concatenate([array[alive] for array, alive in zip(ids, live, strict=True)])
    all_lengths = np.concatenate([array[alive] for array, alive in zip(lengths, live, strict=True)])
    order = np.argsort(all_ids, kind="stable")
    new_place = np.empty(len(order), np.int64)
    new_place[order] = np.arange(len(order))
    places: dict[int, NDArray[np.int64]] = {}
    start = 0
    for segment, alive in zip(chosen, live, strict=True):
        place = np.full(segment.passage_count, -1, np.int64)
        count = int(alive.sum())
        place[alive] = new_place[start : start + count]
        places[segment.pk] = place
        start += count
    return _Plan(all_ids[order].astype("<i8"), all_lengths[order].astype("<u4"), places)


def _deleted_since(chosen: Sequence[Segment], plan: _Plan) -> NDArray[np.bool_] | None:
    """Flags over the merged ordinals; None when one of the old segments is gone."""
    flags = np.zeros(len(plan.passage_ids), np.bool_)
    ids = [segment.pk for segment in chosen]
    rows = Segment.objects.filter(pk__in=ids).values_list("pk", "passage_count", "deleted")
    for segment_id, count, deleted in rows:
        places = plan.places[segment_id][unpack_flags(bytes(deleted), count)]
        flags[places[places >= 0]] = True
        ids.remove(segment_id)
    return None if ids else flags


def _copy_merged(
    collection_id: int, chosen: Sequence[Segment], plan: _Plan, merged: Segment
) -> None:
    """Streams the old postings term by term, so memory stays small whatever the collection."""
    query = """
        SELECT term, segment_id, data FROM searchapp_posting
        WHERE collection_id = %s AND segment_id = ANY(%s::bigint[]) ORDER BY term, segment_id
    """
    with psycopg.ServerCursor(connection.connection, "merging") as reader:
        reader.execute(query, [collection_id, [each.pk for each in chosen]], binary=True)
        waiting: list[tuple[str, int, bytes]] = []
        while rows := reader.fetchmany(MERGE_BATCH_ROWS):
            waiting += rows
            # The last term may go on in the next batch.
            last = waiting[-1][0]
            whole = len(waiting)
            while whole and waiting[whole - 1][0] == last:
                whole -= 1
            _copy_postings([merge_postings(waiting[:whole], plan.places)], merged)
            waiting = waiting[whole:]
        _copy_postings([merge_postings(waiting, plan.places)], merged)


def _copy_postings(packed: Iterable[PackedTerms], segment: Segment) -> None:
    with connection.cursor() as cursor:
        target: Any = cursor
        with target.copy(
            "COPY searchapp_posting (collection_id, segment_id, term, passage_count, data) "
            "FROM STDIN (FORMAT binary)"
        ) as copy:
            copy.write(COPY_START)
            for each in packed:
                for block in copy_rows(each, segment.collection_id, segment.pk):
                    copy.write(block)
            copy.write(COPY_END)


# --- locks, held to the end of the transaction -------------------------------------------------


def _lock_deletions(collection_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_DELETING, _key(collection_id)])


def _try_lock_merging(collection_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [_MERGING, _key(collection_id)])
        row = cursor.fetchone()
    return bool(row and row[0])


def _key(collection_id: int) -> int:
    """Advisory keys are 32 bits wide; collections that share one merely wait for each other."""
    return collection_id % 2**31
