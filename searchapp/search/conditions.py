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

from .condition_parts import Condition, Range, Sql, Test, either, every, tested, through_indexes

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

    $eq and $in are containments (`@>`), which the GIN index on metadata answers. Of a
    `collection_id`, whose documents alone are then asked for, the four orders are ranges of the
    index on attributes; without it, as $ne and $nin always, they are tests on what else is found.
    """
    condition = _Reader().whole(form, 0)
    if collection_id is None:
        return tested(condition, alias)
    return through_indexes(condition, alias, collection_id)


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


def _held(form: str, param: Any, *, negated: bool) -> Test:
    held = f"{{metadata}} @> {form}"
    return Test(f"NOT ({held})" if negated else held, (param,), is_indexed=not negated)


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
