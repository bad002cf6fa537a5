"""Filters as people type them: place=pond, year>=2024, place!=sea, or a condition in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from searchapp.search.conditions import LIST_PREFIX, BadFilter, condition_sql

_TYPED = re.compile(r"(.+?)\s*(!=|>=|<=|=|>|<)\s*(.+)", re.DOTALL)
_OPERATORS = {"!=": "$ne", ">=": "$gte", "<=": "$lte", ">": "$gt", "<": "$lt"}

# A key and its value: any of the values of a key will do. Or a condition, of which all must hold.
Typed = tuple[str, str] | dict[str, Any]


def read_filter(text: str) -> Typed:
    """Raises BadFilter with a sentence."""
    if text.startswith("{"):
        return _read_json(text)
    found = _TYPED.fullmatch(text)
    if found is None:
        raise BadFilter(f"“{text[:80]}” is no filter: write key=value.")
    key, sign, value = (part.strip() for part in found.groups())
    if not key or not value:
        raise BadFilter(f"“{text[:80]}” is no filter: write key=value.")
    if sign == "=":
        return key, value
    if key.startswith(LIST_PREFIX) and sign == "!=":
        return {key: {"$nin": [value]}}
    condition = {key: {_OPERATORS[sign]: value}}
    condition_sql(condition, "d")
    return condition


def all_of(texts: Sequence[str]) -> dict[str, Any]:
    """One condition from the texts of several; those that cannot be read are left out."""
    conditions = []
    for text in texts:
        try:
            read = read_filter(text)
        except BadFilter:
            continue
        if isinstance(read, dict):
            conditions.append(read)
    return conditions[0] if len(conditions) == 1 else {"$and": conditions} if conditions else {}


def _read_json(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFilter(f"“{text[:80]}” is no filter: its JSON cannot be read.") from error
    condition_sql(read, "d")
    return dict(read)
