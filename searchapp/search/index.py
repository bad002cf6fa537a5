"""Reading the BM25 index: the postings of some terms with the arrays to score them.

Segments never change but for their deleted passages, so their arrays stay in this process, keyed by
segment and version, within a fixed number of bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray

from rerank.ranking.bm25 import okapi_average_idf
from searchapp.models import Collection
from searchapp.models.corpus import AnyUser

from .access import visible_sql
from .packing import unpack, unpack_flags

SEGMENT_CACHE_BYTES = 48 << 20
INDEX_CACHE_BYTES = 48 << 20

# Deleted passages, and the transaction that deleted the last: the count alone would not tell a
# rolled back deletion from a later one of as many passages.
Version = tuple[int, int]
# (segment id, version) of every segment, ascending: names one state of one index.
State = tuple[tuple[int, Version], ...]


@dataclass(frozen=True)
class Arrays:
    """The passages of one segment, or of a whole index, by ordinal. `live` None: none deleted."""

    passage_ids: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    live: NDArray[np.bool_] | None

    @property
    def size_bytes(self) -> int:
        return 13 * len(self.passage_ids) + 200


@dataclass(frozen=True)
class Index:
    """One state of a collection's index. `bases`: segment id -> where its ordinals begin."""

    state: State
    bases: dict[int, int]
    arrays: Arrays
    live_count: int
    average_length: float

    @property
    def size_bytes(self) -> int:
        return self.arrays.size_bytes + 100 * len(self.bases)


@dataclass(frozen=True)
class TermPostings:
    """The live postings of one term, ordinals as in `Index.arrays`, ascending."""

    ordinals: NDArray[np.int64]
    frequencies: NDArray[np.uint16]


Cached = TypeVar("Cached", Arrays, Index, float)


class BoundedCache(Generic[Cached]):
    """The least recently used goes when more than `max_bytes` are held. Safe across threads."""

    def __init__(self, max_bytes: int, size: Callable[[Cached], int]) -> None:
        self._max_bytes = max_bytes
        self._size: Callable[[Cached], int] = size
        self._held: OrderedDict[Hashable, Cached] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Cached | None:
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: Hashable, value: Cached) -> None:
        with self._lock:
            old = self._held.pop(key, None)
            self._bytes += self._size(value) - (self._size(old) if old is not None else 0)
            self._held[key] = value
            while self._bytes > self._max_bytes and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= self._size(dropped)

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._bytes = 0


_segments: BoundedCache[Arrays] = BoundedCache(
    SEGMENT_CACHE_BYTES, lambda arrays: arrays.size_bytes
)
_indexes: BoundedCache[Index] = BoundedCache(INDEX_CACHE_BYTES, lambda index: index.size_bytes)
_average_idfs: BoundedCache[float] = BoundedCache(200 * 100, lambda _: 100)


def read_index(
    collection: Collection, user: AnyUser, terms: Sequence[str]
) -> tuple[Index, dict[str, TermPostings]]:
    """The collection's index and its live postings for `terms`, all of one moment.

    Empty for a user who may not see the collection: the permission is part of the statement. Terms
    without live passages are absent.
    """
    rows = _select(collection, user, terms)
    index = _index(collection.pk, _versions(rows))
    if index is None:  # a merge was quicker; what comes with the postings cannot be too late
        rows = _select(collection, user, terms, with_arrays=True)
        index = _assemble(_versions(rows), {row[0]: _arrays(*row[5:8]) for row in rows})
    pieces: dict[str, list[tuple[int, bytes]]] = {}
    for segment_id, _, _, term, data, *_ in rows:
        if term is not None:
            pieces.setdefault(term, []).append((index.bases[segment_id], data))
    found = {term: _live_postings(index, sorted(parts)) for term, parts in pieces.items()}
    return index, {term: each for term, each in found.items() if len(each.ordinals)}


def average_okapi_idf(collection: Collection, index: Index) -> float:
    """The mean idf over all live terms of this state of the index; one pass, then remembered."""
    known = _average_idfs.get(index.state)
    if known is not None:
        return known
    frequencies: dict[str, int] = dict(
        _rows(
            "SELECT term, sum(passage_count)::bigint FROM searchapp_posting "
            "WHERE collection_id = %s AND segment_id = ANY(%s::bigint[]) GROUP BY term",
            [collection.pk, [each for each, (deleted, _) in index.state if not deleted]],
        )
    )
    for segment_id in [each for each, (deleted, _) in index.state if deleted]:
        rows = _rows(
            "SELECT term, data FROM searchapp_posting WHERE collection_id = %s AND segment_id = %s",
            [collection.pk, segment_id],
        )
        for term, data in rows:
            alive = len(_live_postings(index, [(index.bases[segment_id], data)]).ordinals)
            if alive:
                frequencies[term] = frequencies.get(term, 0) + alive
    average = okapi_average_idf(
        index.live_count, np.fromiter(frequencies.values(), np.float64, len(frequencies))
    )
    _average_idfs.put(index.state, average)
    return average


def forget_cached() -> None:
    """Empties the caches of this process (for tests and measurements)."""
    for cache in (_segments, _indexes, _average_idfs):
        cache.clear()


def _select(
    collection: Collection, user: AnyUser, terms: Sequence[str], *, with_arrays: bool = False
) -> list[tuple[Any, ...]]:
    """Rows (segment id, *version, term, data, …): one per posting, or per segment without any."""
    visible, params = visible_sql(collection, user)
    arrays = ", s.passage_ids, s.lengths, s.deleted" if with_arrays else ""
    query = f"""
        SELECT s.id, s.deleted_count, s.xmin::text::bigint, p.term, p.data{arrays}
        FROM searchapp_segment s
        LEFT JOIN searchapp_posting p
            ON p.collection_id = %s AND p.term = ANY(%s) AND p.segment_id = s.id
        WHERE s.collection_id IN ({visible})
    """
    return _rows(query, [collection.pk, list(terms), *params])


def _versions(rows: Sequence[tuple[Any, ...]]) -> dict[int, Version]:
    return dict(sorted({row[0]: (row[1], row[2]) for row in rows}.items()))


def _index(collection_id: int, versions: dict[int, Version]) -> Index | None:
    """From the caches or the database; None when a segment is gone meanwhile."""
    index = _indexes.get((collection_id, tuple(versions.items())))
    if index is not None:
        return index
    loaded = {each: _segments.get((each, version)) for each, version in versions.items()}
    missing = [each for each, arrays in loaded.items() if arrays is None]
    if missing:
        rows = _rows(
            "SELECT id, deleted_count, xmin::text::bigint, passage_ids, lengths, deleted "
            "FROM searchapp_segment WHERE id = ANY(%s::bigint[])",
            [missing],
        )
        for each, count, transaction_id, *columns in rows:
            versions[each] = (count, transaction_id)  # may be newer: then hidden here too
            loaded[each] = arrays = _arrays(*columns)
            _segments.put((each, versions[each]), arrays)
    present = {each: arrays for each, arrays in loaded.items() if arrays is not None}
    if len(present) < len(loaded):
        return None
    index = _assemble(versions, present)
    _indexes.put((collection_id, index.state), index)
    return index


def _arrays(passage_ids: bytes, lengths: bytes, deleted: bytes) -> Arrays:
    ids = np.frombuffer(passage_ids, "<i8")
    live = ~unpack_flags(deleted, len(ids)) if deleted else None
    return Arrays(ids, np.frombuffer(lengths, "<u4"), live)


def _assemble(versions: dict[int, Version], segments: dict[int, Arrays]) -> Index:
    bases: dict[int, int] = {}
    start = 0
    for segment_id in versions:
        bases[segment_id] = start
        start += len(segments[segment_id].passage_ids)
    ordered = [segments[segment_id] for segment_id in versions]
    if len(ordered) == 1:
        arrays = ordered[0]
    else:
        live = None
        if any(each.live is not None for each in ordered):
            live = np.concatenate([_flags(each) for each in ordered])
        arrays = Arrays(
            np.concatenate([np.empty(0, "<i8"), *(each.passage_ids for each in ordered)]),
            np.concatenate([np.empty(0, "<u4"), *(each.lengths for each in ordered)]),
            live,
        )
    lengths = arrays.lengths if arrays.live is None else arrays.lengths[arrays.live]
    return Index(
        state=tuple(versions.items()),
        bases=bases,
        arrays=arrays,
        live_count=len(lengths),
        average_length=float(lengths.sum(dtype=np.float64)) / max(len(lengths), 1),
    )


def _flags(arrays: Arrays) -> NDArray[np.bool_]:
    return np.ones(len(arrays.passage_ids), np.bool_) if arrays.live is None else arrays.live


def _live_postings(index: Index, parts: Sequence[tuple[int, bytes]]) -> TermPostings:
    ordinals, frequencies = [], []
    for base, data in parts:
        local, frequency = unpack(data)
        ordinals.append(local.astype(np.int64) + base)
        frequencies.append(frequency)
    together = ordinals[0] if len(parts) == 1 else np.concatenate(ordinals)
    counts = frequencies[0] if len(parts) == 1 else np.concatenate(frequencies)
    if index.arrays.live is not None:
        alive = index.arrays.live[together]
        together, counts = together[alive], counts[alive]
    return TermPostings(together, counts)


def _rows(query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows in PostgreSQL's binary form; Django's own cursor receives bytea as text of twice the
    size."""
    connection.ensure_connection()
    with psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(query, params, binary=True).fetchall()
