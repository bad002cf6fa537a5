"""Model instances from rows that were read by SQL of our own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeVar

from django.db import connections, models

Made = TypeVar("Made", bound=models.Model)


def from_row(model: type[Made], database: str, row: Sequence[Any]) -> Made:
    """The instance whose concrete fields, in the model's order, are the row's first values."""
    names, converted = _columns(model)
    values = list(row[: len(names)])
    for place, field in converted:
        for convert in field.get_db_converters(connections[database]):
            values[place] = convert(values[place], None, connections[database])
    return model.from_db(database, names, values)


def width(model: type[models.Model]) -> int:
    """How many columns `from_row` takes."""
    return len(_columns(model)[0])


@functools.cache
def _columns(
    model: type[models.Model],
) -> tuple[list[str], list[tuple[int, models.Field[Any, Any]]]]:
    """Names of attributes, and the places of those whose values are converted as they are read."""
    fields: Sequence[Any] = model._meta.concrete_fields
    converted = [(at, each) for at, each in enumerate(fields) if hasattr(each, "from_db_value")]
    return [each.attname for each in fields], converted
