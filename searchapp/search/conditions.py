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

LIST_PREFIX = "list:"
_ORDERS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ["$eq", "$ne", *_ORDERS, "$in", "$nin"]

MAX_DEPTH = 16
MAX_PARTS = 200
MAX_CHOICES = 2000

Sql = tuple[str, list[Any]]


class BadFilter(ValueError):
    """A filter that says nothing we understand; the message is for the person who wrote it."""


def condition_sql(form: Mapping[str, Any], alias: str) -> Sql:
    """A condition on the document table called `alias`, and its parameters. Raises BadFilter.

    $eq and $in are containments (`@>`), which the GIN index on metadata answers.
    """
    return _Compiler(alias).whole(form, 0)


class _Compiler:
    """Counts what it compiles, so that no filter costs more than it should."""

    def __init__(self, alias: str) -> None:
        self._metadata = f"{alias}.metadata"
        self._parts = 0
        self._choices = 0

    def whole(self, form: Any, depth: int) -> Sql:
        if not isinstance(form, Mapping):
            raise BadFilter("A filter is an object of attributes and conditions.")
        if depth > MAX_DEPTH:
            raise BadFilter(f"The filter is nested more than {MAX_DEPTH} deep.")
        return _joined(" AND ", "TRUE", [self._entry(*entry, depth) for entry in form.items()])

    def _entry(self, name: Any, value: Any, depth: int) -> Sql:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadFilter(f"The filter has more than {MAX_PARTS} conditions.")
        if name in {"$and", "$or"}:
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise BadFilter(f"{name} takes a list of filters.")
            parts = [self.whole(each, depth + 1) for each in value]
            return _joined(" AND ", "TRUE", parts) if name == "$and" else _either(parts)
        name = _storable(name)
        if name.startswith("$"):
            raise BadFilter(f"There is no operator {name[:50]!r}; $and and $or take filters.")
        if isinstance(value, str):
            value = {"$eq": value}
        if not isinstance(value, Mapping) or not value:
            raise BadFilter(f'{name[:100]!r} needs a condition, such as {{"$eq": "…"}}.')
        tests = [self._test(name, *test) for test in value.items()]
        return _joined(" AND ", "TRUE", tests)

    def _test(self, name: str, operator: Any, value: Any) -> Sql:
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
            # Whatever else than a text stands there compares with nothing.
            return (
                f"(jsonb_typeof({self._metadata} -> %s::text) = 'string' AND "
                f'({self._metadata} ->> %s::text) COLLATE "C" {_ORDERS[operator]} %s)',
                [name, name, text],
            )
        held = f"{self._metadata} @> %s::jsonb"
        return (held if operator == "$eq" else f"NOT ({held})"), [json.dumps({name: text})]

    def _among(self, name: str, value: Any, is_list: bool, *, negated: bool) -> Sql:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise BadFilter(f"$in and $nin of {name[:100]!r} take a list of texts.")
        self._choices += len(value)
        if self._choices > MAX_CHOICES:
            raise BadFilter(f"The filter lists more than {MAX_CHOICES:,} texts.")
        texts = list(dict.fromkeys(_text(name, each) for each in value))
        if not texts:
            return ("TRUE" if negated else "FALSE"), []
        forms = [json.dumps({name: [text] if is_list else text}) for text in texts]
        held = f"{self._metadata} @> ANY(%s::jsonb[])"
        return (f"NOT ({held})" if negated else held), [forms]


def _joined(word: str, empty: str, parts: Sequence[Sql]) -> Sql:
    if len(parts) == 1:
        return parts[0]
    sql = word.join(f"({text})" for text, _ in parts)
    return sql or empty, [param for _, params in parts for param in params]


def _either(parts: Sequence[Sql]) -> Sql:
    return _joined(" OR ", "FALSE", parts)


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
