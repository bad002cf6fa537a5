"""Postings as bytes: terms of passages -> packed arrays, and the same back. Numbers only."""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_FREQUENCY = 65_535
# What PostgreSQL expects at both ends of a binary COPY.
COPY_START = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_END = struct.pack(">h", -1)

Ordinals = NDArray[np.uint32]
Frequencies = NDArray[np.uint16]


@dataclass(frozen=True)
class PackedTerms:
    """Postings of several terms in one segment.

    Those of `terms[i]` stand at `bounds[i]:bounds[i + 1]` of `ordinals` (ascending within a term)
    and `frequencies`.
    """

    terms: Sequence[str]
    bounds: NDArray[np.int64]
    ordinals: Ordinals
    frequencies: Frequencies


def pack_terms(passages: Sequence[Sequence[str]]) -> PackedTerms:
    """The postings of passages given as their terms; a passage's place is its ordinal."""
    codes: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    lengths = [len(terms) for terms in passages]
    total = sum(lengths)
    stream = np.fromiter(
        map(codes.__getitem__, itertools.chain.from_iterable(passages)), np.int64, total
    )
    ordered = sorted(codes)
    place = np.empty(len(ordered), np.int64)
    place[[codes[term] for term in ordered]] = np.arange(len(ordered))
    width = max(len(passages), 1)
    keys = place[stream] * width + np.repeat(np.arange(len(passages)), lengths)
    distinct, counts = np.unique(keys, return_counts=True)
    return PackedTerms(
        terms=ordered,
        bounds=_bounds(distinct // width, len(ordered)),
        ordinals=(distinct % width).astype("<u4"),
        frequencies=np.minimum(counts, MAX_FREQUENCY).astype("<u2"),
    )


def merge_postings(
    rows: Sequence[tuple[str, int, bytes]], places: dict[int, NDArray[np.int64]]
) -> PackedTerms:
    """The postings of several segments as those of one.

    `rows`: (term, segment id, data), rows of one term together. `places[segment
    id]`: the new ordinal of each old one, -1 for passages left behind. Terms without any passage
    left are left out.
    """
    terms: list[str] = []
    row_terms = np.empty(len(rows), np.int64)
    ordinals, frequencies, counts = [], [], []
    for index, (term, segment_id, data) in enumerate(rows):
        if not terms or terms[-1] != term:
            terms.append(term)
        row_terms[index] = len(terms) - 1
        old, frequency = unpack(data)
        ordinals.append(places[segment_id][old])
        frequencies.append(frequency)
        counts.append(len(old))
    new = np.concatenate(ordinals) if ordinals else np.empty(0, np.int64)
    repeated = np.repeat(row_terms, counts)
    kept = new >= 0
    new, repeated = new[kept], repeated[kept]
    frequency = np.concatenate(frequencies)[kept] if frequencies else np.empty(0, "<u2")
    order = np.lexsort((new, repeated))
    bounds = _bounds(repeated, len(terms))
    alive = np.diff(bounds) > 0
    return PackedTerms(
        terms=list(itertools.compress(terms, alive)),
        bounds=np.append(bounds[:-1][alive], bounds[-1]),
        ordinals=new[order].astype("<u4"),
        frequencies=frequency[order],
    )


def unpack(data: bytes) -> tuple[Ordinals, Frequencies]:
    """Ordinals and frequencies of one posting row; views on the bytes, so not to be written to."""
    count = len(data) // 6
    return (
        np.frombuffer(data, "<u4", count),
        np.frombuffer(data, "<u2", count, offset=4 * count),
    )


def copy_rows(
    packed: PackedTerms, collection_id: int, segment_id: int, block_bytes: int = 1 << 18
) -> Iterator[bytes]:
    """Blocks of a binary COPY into (collection_id, segment_id, term, passage_count, data)."""
    ordinals, frequencies = packed.ordinals.tobytes(), packed.frequencies.tobytes()
    bounds = packed.bounds.tolist()
    start = struct.pack(">hiqiq", 5, 8, collection_id, 8, segment_id)
    pieces: list[bytes] = []
    size = 0
    for term, first, last in zip(packed.terms, bounds[:-1], bounds[1:], strict=True):
        name = term.encode()
        count = last - first
        pieces += (
            start,
            struct.pack(">i", len(name)),
            name,
            struct.pack(">iii", 4, count, 6 * count),
            ordinals[4 * first : 4 * last],
            frequencies[2 * first : 2 * last],
        )
        size += 40 + len(name) + 6 * count
        if size >= block_bytes:
            yield b"".join(pieces)
            pieces, size = [], 0
    yield b"".join(pieces)


def pack_flags(flags: NDArray[np.bool_]) -> bytes:
    """A bitmap, eight flags a byte; empty when none is set."""
    return np.packbits(flags).tobytes() if flags.any() else b""


def unpack_flags(data: bytes, count: int) -> NDArray[np.bool_]:
    """The `count` flags of `pack_flags`; an empty bitmap is all false."""
    if not data:
        return np.zeros(count, np.bool_)
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(np.bool_)


def _bounds(sorted_or_not: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Where each of `count` groups begins and ends once its members stand together."""
    sizes = np.bincount(sorted_or_not, minlength=count)
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
