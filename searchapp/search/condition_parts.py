"""The parts of a condition on metadata, and each as SQL: tested on what else was found, or through
the indexes of a collection. See docs/decisions/0020."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from searchapp.models.attributes import MAX_NAME, MAX_TEXT, SEPARATOR

Sql = tuple[str, list[Any]]

# Where entries of a name end: SEPARATOR's successor.
_AFTER = chr(ord(SEPARATOR) + 1)

# Documents. Beyond, testing one after the other costs little more, and for the first few in some
# order much less, than fetching all of them through an index.
SHORT_RANGE = 5_000
# More joins take PostgreSQL longer to plan than they could save.
MAX_JOINED = 4
# Rows of a containment, which nobody counts; as many as a filter may have do not forbid an index.
_FEW = 20


@dataclass(frozen=True)
class Containment:
    """`sql` on the column called {metadata}. `is_indexed`: the GIN index on metadata answers it."""

    sql: str
    params: tuple[Any, ...]
    is_indexed: bool


@dataclass(frozen=True)
class Range:
    """The attribute is a text and holds all the bounds, (operator of SQL, text) each."""

    name: str
    bounds: tuple[tuple[str, str], ...]

    @property
    def has_rows(self) -> bool:
        """Whether the table of attributes can have any of this name."""
        return len(self.name) <= MAX_NAME and SEPARATOR not in self.name

    @property
    def is_exact(self) -> bool:
        """Whether the cut texts of the rows are enough to tell."""
        return all(len(text) < MAX_TEXT for _, text in self.bounds)


@dataclass(frozen=True)
class Every:
    """All of the parts; without any, everything."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Either:
    """One of the parts; without any, nothing."""

    parts: tuple[Condition, ...]


Condition = Containment | Range | Every | Either


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
        case Containment(sql, params):
            return sql.format(metadata=f"{alias}.metadata"), list(params)
        case Range(name, bounds):
            # Whatever else than a text stands there compares with nothing. CASE, because PostgreSQL
            # believes that an equation of a function's value lets next to nothing pass.
            metadata = f"{alias}.metadata"
            compared = " AND ".join(
                f'({metadata} ->> %s::text) COLLATE "C" {operator} %s' for operator, _ in bounds
            )
            return (
                f"CASE jsonb_typeof({metadata} -> %s::text) "
                f"WHEN 'string' THEN {compared} ELSE FALSE END",
                [name, *(param for _, text in bounds for param in (name, text))],
            )
        case Every(parts_of):
            return _joined(" AND ", "TRUE", [tested(part, alias) for part in parts_of])
        case Either(parts_of):
            return _joined(" OR ", "FALSE", [tested(part, alias) for part in parts_of])


class ThroughIndexes:
    """Conditions on the documents of one collection in a form that its indexes answer.

    `short`: the ranges that are worth reading from their index, with how many rows they have there;
    the others are tested.
    """

    def __init__(self, collection_id: int, short: Mapping[Range, int]) -> None:
        self._collection_id = collection_id
        self._short = short

    def sql(self, condition: Condition, alias: str, depth: int = 0) -> Sql:
        """On the document table called `alias`; `depth` of subselects names their own."""
        match condition:
            case Range() if condition in self._short:
                found, params = entries(condition, self._collection_id)
                sql = f"{alias}.id IN (SELECT a.document_id {found})"
                if condition.is_exact:
                    return sql, params
                exact, more = tested(condition, alias)
                return f"{sql} AND {exact}", params + more
            case Every(parts):
                return _joined(" AND ", "TRUE", self._all(parts, alias, depth))
            case Either(parts) if self._rows(condition) <= SHORT_RANGE and any(ranges(condition)):
                # No index answers an OR of two tables; a set from several indexes does.
                branches = [part for part in parts if any(ranges(part))]
                if plain := [part for part in parts if not any(ranges(part))]:
                    branches.append(either(plain))
                sets = [self._documents(part, depth + 1) for part in branches]
                union = " UNION ALL ".join(sql for sql, _ in sets)
                return f"{alias}.id IN ({union})", [param for _, each in sets for param in each]
            case _:
                return tested(condition, alias)

    def _all(self, parts: Sequence[Condition], alias: str, depth: int) -> list[Sql]:
        """The parts, those with ranges tested except the shortest few."""
        with_ranges = [part for part in parts if any(ranges(part))]
        shortest = sorted(with_ranges, key=self._rows)[:MAX_JOINED]
        return [
            self.sql(part, alias, depth)
            if part in shortest or part not in with_ranges
            else tested(part, alias)
            for part in parts
        ]

    def _rows(self, condition: Condition) -> float:
        """Of how many rows indexes find all that passes; inf where they do not find it."""
        match condition:
            case Containment():
                return _FEW if condition.is_indexed else inf
            case Range():
                return self._short.get(condition, inf)
            case Every(parts):
                return min(map(self._rows, parts), default=inf)
            case Either(parts):
                return sum(map(self._rows, parts))

    def _documents(self, condition: Condition, depth: int) -> Sql:
        """A subselect of the ids of the collection's documents that pass."""
        if isinstance(condition, Range) and condition in self._short and condition.is_exact:
            found, params = entries(condition, self._collection_id)
            return f"SELECT a.document_id {found}", params
        alias = f"d{depth}"
        sql, params = self.sql(condition, alias, depth)
        found = f"SELECT {alias}.id FROM searchapp_document {alias}"
        where = f"{alias}.collection_id = %s AND ({sql})"
        return f"{found} WHERE {where}", [self._collection_id, *params]


def entries(condition: Range, collection_id: int) -> Sql:
    """FROM and WHERE for the attribute rows, called `a`, between the bounds."""
    sql = (
        "FROM searchapp_documentattribute a "
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


def ranges(condition: Condition) -> Iterator[Range]:
    """All ranges within the condition."""
    match condition:
        case Range():
            yield condition
        case Every(parts) | Either(parts):
            for part in parts:
                yield from ranges(part)
        case _:
            return


def _joined(word: str, empty: str, parts: Sequence[Sql]) -> Sql:
    if len(parts) == 1:
        return parts[0]
    sql = word.join(f"({text})" for text, _ in parts)
    return sql or empty, [param for _, params in parts for param in params]
