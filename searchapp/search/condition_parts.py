"""The parts of a condition on metadata, and each as SQL: tested on what else was found, or through
the indexes of a collection. See docs/decisions/0020."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from searchapp.models.attributes import MAX_NAME, MAX_TEXT, SEPARATOR

Sql = tuple[str, list[Any]]

# Where entries of a name end: SEPARATOR's successor.
_AFTER = chr(ord(SEPARATOR) + 1)


@dataclass(frozen=True)
class Test:
    """`sql` on the column called {metadata}. `is_indexed`: the GIN index on metadata answers it."""

    sql: str
    params: tuple[Any, ...]
    is_indexed: bool

    __test__ = False  # nothing for pytest to collect


@dataclass(frozen=True)
class Range:
    """The attribute is a text and holds all the bounds, (operator of SQL, text) each."""

    name: str
    bounds: tuple[tuple[str, str], ...]

    @property
    def is_indexed(self) -> bool:
        return len(self.name) <= MAX_NAME and SEPARATOR not in self.name


@dataclass(frozen=True)
class Every:
    """All of the parts; without any, everything."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Either:
    """One of the parts; without any, nothing."""

    parts: tuple[Condition, ...]


Condition = Test | Range | Every | Either


def every(parts: Sequence[Condition]) -> Condition:
    """All of the parts. Bounds of one name become one range, which the index reads in one piece."""
    flat = [
        inner for part in parts for inner in (part.parts if isinstance(part, Every) else [part])
    ]
    bounds: dict[str, tuple[tuple[str, str], ...]] = {}
    for part in flat:
        if isinstance(part, Range):
            bounds[part.name] = bounds.get(part.name, ()) + part.bounds
    ranges = [Range(name, theirs) for name, theirs in bounds.items()]
    merged = [*(part for part in flat if not isinstance(part, Range)), *ranges]
    return merged[0] if len(merged) == 1 else Every(tuple(merged))


def either(parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Either(tuple(parts))


def tested(condition: Condition, alias: str) -> Sql:
    """On the metadata alone of the document table called `alias`."""
    match condition:
        case Test(sql, params):
            return sql.format(metadata=f"{alias}.metadata"), list(params)
        case Range(name, bounds):
            metadata = f"{alias}.metadata"
            # Whatever else than a text stands there compares with nothing.
            parts: list[Sql] = [(f"jsonb_typeof({metadata} -> %s::text) = 'string'", [name])]
            parts += [
                (f'({metadata} ->> %s::text) COLLATE "C" {operator} %s', [name, text])
                for operator, text in bounds
            ]
            return _joined(" AND ", "TRUE", parts)
        case Every(parts_of):
            return _joined(" AND ", "TRUE", [tested(part, alias) for part in parts_of])
        case Either(parts_of):
            return _joined(" OR ", "FALSE", [tested(part, alias) for part in parts_of])


def through_indexes(condition: Condition, alias: str, collection_id: int, depth: int = 0) -> Sql:
    """The same, for the collection's documents only, in a form that indexes can answer.

    PostgreSQL joins a range with its documents from either side: from the range where that is
    short, from the document where another part or a limit leaves few. `depth`: of subselects.
    """
    match condition:
        case Range() if condition.is_indexed:
            entries, params = _entries(condition, collection_id)
            sql = f"EXISTS (SELECT 1 FROM {entries} AND a.document_id = {alias}.id)"
            if _is_exact(condition):
                return sql, params
            exact, more = tested(condition, alias)
            return f"{sql} AND {exact}", params + more
        case Every(parts):
            each = [through_indexes(part, alias, collection_id, depth) for part in parts]
            return _joined(" AND ", "TRUE", each)
        case Either(parts) if _has_range(condition) and _is_indexed(condition):
            # No index answers an OR of tables; one set of documents from several indexes does.
            plain = [part for part in parts if not _has_range(part)]
            branches = [part for part in parts if _has_range(part)]
            if plain:
                branches.append(either(plain))
            sets = [_documents(part, collection_id, depth + 1) for part in branches]
            united = " UNION ALL ".join(sql for sql, _ in sets)
            return f"{alias}.id IN ({united})", [param for _, params in sets for param in params]
        case _:
            return tested(condition, alias)


def _documents(condition: Condition, collection_id: int, depth: int) -> Sql:
    """A subselect of the ids of the collection's documents that pass."""
    if isinstance(condition, Range) and _is_exact(condition):
        entries, params = _entries(condition, collection_id)
        return f"SELECT a.document_id FROM {entries}", params
    alias = f"d{depth}"
    sql, params = through_indexes(condition, alias, collection_id, depth)
    found = f"SELECT {alias}.id FROM searchapp_document {alias}"
    return f"{found} WHERE {alias}.collection_id = %s AND ({sql})", [collection_id, *params]


def _entries(condition: Range, collection_id: int) -> Sql:
    """Table and WHERE of the attribute rows whose entries lie between the bounds, `a` by name."""
    sql = (
        "searchapp_documentattribute a "
        "WHERE a.collection_id = %s AND a.entry >= %s AND a.entry < %s"
    )
    start = condition.name + SEPARATOR
    params: list[Any] = [collection_id, start, condition.name + _AFTER]
    for operator, text in condition.bounds:
        # A text that was cut is at the bound, whichever side of it the whole one is.
        is_cut = len(text) >= MAX_TEXT
        sql += f" AND a.entry {operator[0] + '=' if is_cut else operator} %s"
        params.append(start + text[:MAX_TEXT])
    return sql, params


def _is_exact(condition: Range) -> bool:
    """Whether the cut texts of the rows are enough to tell."""
    return condition.is_indexed and all(len(text) < MAX_TEXT for _, text in condition.bounds)


def _has_range(condition: Condition) -> bool:
    match condition:
        case Every(parts) | Either(parts):
            return any(_has_range(part) for part in parts)
        case _:
            return isinstance(condition, Range)


def _is_indexed(condition: Condition) -> bool:
    """Whether indexes alone can find all that passes."""
    match condition:
        case Every(parts):
            return any(_is_indexed(part) for part in parts)
        case Either(parts):
            return all(_is_indexed(part) for part in parts)
        case _:
            return condition.is_indexed


def _joined(word: str, empty: str, parts: Sequence[Sql]) -> Sql:
    if len(parts) == 1:
        return parts[0]
    sql = word.join(f"({text})" for text, _ in parts)
    return sql or empty, [param for _, params in parts for param in params]
