"""Conditions on metadata as programs write them, compiled into SQL.

{"place": {"$eq": "pond"}}, {"date": {"$gte": "2024", "$lt": "2025"}}, {"list:tags": {"$in": [...]}}
and {"$and": [...]}, {"$or": [...]} of such. Several attributes of one object must all hold; a bare
text stands for $eq. Texts compare by their code points. An attribute that is missing fails $eq and
the four orders, and passes $ne and $nin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from .condition_parts import (
    SHORT_RANGE,
    Condition,
    Containment,
    Range,
    Sql,
    ThroughIndexes,
    either,
    entries,
    every,
    ranges,
    tested,
)

LIST_PREFIX = "list:"
_ORDERS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ["$eq", "$ne", *_ORDERS, "$in", "$nin"]

MAX_DEPTH = 16
MAX_PARTS = 200
MAX_CHOICES = 2000


class BadFilter(ValueError):
    """A filter that says nothing we understand; the message is for the person who wrote it."""


def condition_sql(form: Mapping[str, Any], alias: str, collection_id: int | None = None) -> Sql:
    """A condition on the document table called `alias`, and its parameters. Raises BadFilter.

    $eq and $in are containments (`@>`), which the GIN index on metadata answers; $ne and $nin are
    tests on what else is found. So are the four orders, unless `collection_id` names the collection
    whose documents alone are asked for: then those that let no more than SHORT_RANGE of them pass
    are read from the index on attributes. How many they are is asked of the database here.
    """
    condition = _Reader().whole(form, 0)
    if collection_id is None:
        return tested(condition, alias)
    return ThroughIndexes(collection_id, _short(condition, collection_id)).sql(condition, alias)


def _short(condition: Condition, collection_id: int) -> dict[Range, int]:
    """The ranges of few rows with how many those are, counted no further than that."""
    found = list(dict.fromkeys(each for each in ranges(condition) if each.has_rows))
    if not found:
        return {}
    counts, params = [], []
    for each in found:
        sql, more = entries(each, collection_id)
        # In the index's order, so that nothing else than the index is read for it.
        counts.append(f"(SELECT count(*) FROM (SELECT 1 {sql} ORDER BY a.entry LIMIT %s) rows)")
        params += [*more, SHORT_RANGE + 1]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(counts)}", params)
        row = cursor.fetchone()
    return {each: n for each, n in zip(found, row, strict=True) if n <= SHORT_RANGE}


class _Reader:
    """Counts what it reads, so that no filter costs more than it should."""

    def __init__(self) -> None:
        self._parts = 0
        self._choices = 0

    def whole(self, form: Any, depth: int) -> Condition:
        if not isinstance(form, Mapping):
            raise BadFilter("A filter is an object of attributes and conditions.")
        if depth > MAX_DEPTH:
            raise BadFilter(f"The filter is nested more than {MAX_DEPTH} deep.")
        return every([self._entry(*entry, depth) for entry in form.items()])

    def _entry(self, name: Any, value: Any, depth: int) -> Condition:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadFilter(f"The filter has more than {MAX_PARTS} conditions.")
        if name in {"$and", "$or"}:
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise BadFilter(f"{name} takes a list of filters.")
            parts = [self.whole(each, depth + 1) for each in value]
            return every(parts) if name == "$and" else either(parts)
        name = _storable(name)
        if name.startswith("$"):
            raise BadFilter(f"There is no operator {name[:50]!r}; $and and $or take filters.")
        if isinstance(value, str):
            value = {"$eq": value}
        if not isinstance(value, Mapping) or not value:
            raise BadFilter(f'{name[:100]!r} needs a condition, such as {{"$eq": "…"}}.')
        return every([self._test(name, *test) for test in value.items()])

    def _test(self, name: str, operator: Any, value: Any) -> Condition:
        is_list = name.startswith(LIST_PREFIX)
        if operator not in _OPERATORS:
            known = ", ".join(_OPERATORS)
            raise BadFilter(f"There is no operator {str(operator)[:50]!r}; there are {known}.")
        if operator in {"$in", "$nin"}:
            return self._among(name, value, is_list, negated=operator == "$nin")
        if is_list:
            raise BadFilter(f"{name[:100]!r} is a list: only $in and $nin apply to it.")
        text = _text(name, value)
        if operator in _ORDERS:
            return Range(name, ((_ORDERS[operator], text),))
        return _held("%s::jsonb", json.dumps({name: text}), negated=operator == "$ne")

    def _among(self, name: str, value: Any, is_list: bool, *, negated: bool) -> Condition:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise BadFilter(f"$in and $nin of {name[:100]!r} take a list of texts.")
        self._choices += len(value)
        if self._choices > MAX_CHOICES:
            raise BadFilter(f"The filter lists more than {MAX_CHOICES:,} texts.")
        texts = list(dict.fromkeys(_text(name, each) for each in value))
        if not texts:
            return every([]) if negated else either([])
        forms = [json.dumps({name: [text] if is_list else text}) for text in texts]
        return _held("ANY(%s::jsonb[])", forms, negated=negated)


def _held(form: str, param: Any, *, negated: bool) -> Containment:
    held = f"{{metadata}} @> {form}"
    return Containment(f"NOT ({held})" if negated else held, (param,), is_indexed=not negated)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadFilter(f"{name[:100]!r} compares with texts; {json.dumps(value)[:50]} is none.")
    return _storable(value)


def _storable(text: Any) -> str:
    found = str(text)
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise BadFilter("The filter holds half a character.") from error
    if "\0" in found:
        raise BadFilter("The filter holds a null character, which no text here can.")
    return found
