"""Metadata filters: read from plain JSON, checked, and compiled into SQL on the document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from searchapp.models import Collection
from searchapp.models.corpus import AnyUser

from .access import visible_sql
from .conditions import BadFilter, condition_sql

__all__ = ["NO_FILTERS", "BadFilter", "Filters", "matching_passages", "read_filters"]

MAX_VALUES = 200
MAX_KEYS = 20


@dataclass(frozen=True)
class Filters:
    """Any of the values of a key, and all of the keys. Empty filters let everything pass.

    `metadata` values compare as text with the metadata's own values, be they one or a list.
    `where`: a condition of conditions.py as JSON, "" for none.
    """

    media_types: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    where: str = ""

    def __bool__(self) -> bool:
        return bool(self.media_types or self.metadata or self.where)

    def as_json(self) -> dict[str, Any]:
        """The form that `read_filters` reads."""
        form: dict[str, Any] = {}
        if self.media_types:
            form["media_type"] = list(self.media_types)
        if self.metadata:
            form["metadata"] = {key: list(values) for key, values in self.metadata}
        if self.where:
            form["where"] = json.loads(self.where)
        return form

    def document_sql(
        self, alias: str = "d", collection: Collection | None = None
    ) -> tuple[str, list[Any]]:
        """A condition on the document table called `alias`, and its parameters.

        Containment (`@>`) so that the GIN index on metadata can answer it. `collection`: the one
        whose documents alone are asked for; then the index on attributes answers short ranges.
        """
        conditions: list[str] = []
        params: list[Any] = []
        if self.media_types:
            conditions.append(f"{alias}.media_type = ANY(%s)")
            params.append(list(self.media_types))
        for key, values in self.metadata:
            forms = [json.dumps({key: form}) for value in values for form in (value, [value])]
            conditions.append(
                "(" + " OR ".join([f"{alias}.metadata @> %s::jsonb"] * len(forms)) + ")"
            )
            params += forms
        if self.where:
            condition, more = condition_sql(
                json.loads(self.where), alias, None if collection is None else collection.pk
            )
            conditions.append(f"({condition})")
            params += more
        return " AND ".join(conditions) or "TRUE", params


NO_FILTERS = Filters()


def read_filters(form: Mapping[str, Any] | Filters | None) -> Filters:
    """{"media_type": [...], "language": [...], "metadata": {key: [values]}, "where": {...}} ->
    Filters.

    A single value may stand without its list; `language` is the metadata of that name; `where` is a
    condition of conditions.py. Raises BadFilter.
    """
    if form is None:
        return NO_FILTERS
    if isinstance(form, Filters):
        return form
    unknown = sorted(set(form) - {"media_type", "language", "metadata", "where"})
    if unknown:
        raise BadFilter(f"There is no filter called {unknown[0]!r}.")
    metadata = form.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise BadFilter("The metadata filter names keys with their values.")
    if len(metadata) > MAX_KEYS:
        raise BadFilter(f"A search can filter by {MAX_KEYS} keys at most.")
    pairs = {str(key): _values(str(key), value) for key, value in metadata.items()}
    if form.get("language"):
        pairs["language"] = _values("language", form["language"])
    return Filters(
        media_types=_values("media_type", form.get("media_type") or ()),
        metadata=tuple(sorted((key, values) for key, values in pairs.items() if values)),
        where=_where(form.get("where")),
    )


def matching_passages(
    collection: Collection, user: AnyUser, filters: Filters, passage_ids: Sequence[int]
) -> NDArray[np.int64]:
    """Those of the passages, in a collection the user may see, whose document passes."""
    visible, visible_params = visible_sql(collection, user)
    condition, params = filters.document_sql("d", collection)
    query = f"""
        SELECT p.id FROM searchapp_passage p JOIN searchapp_document d ON d.id = p.document_id
        WHERE p.id = ANY(%s) AND p.collection_id IN ({visible}) AND {condition}
    """
    with connection.cursor() as cursor:
        cursor.execute(query, [list(passage_ids), *visible_params, *params])
        return np.array([row[0] for row in cursor.fetchall()], np.int64)


def _where(form: Any) -> str:
    if not form:
        return ""
    condition_sql(form, "d")  # what cannot be compiled is refused now, not in a thread of a search
    return json.dumps(form, sort_keys=True)


def _values(key: str, given: Any) -> tuple[str, ...]:
    values = [given] if isinstance(given, str | int | float) else given
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, str | int | float) for value in values
    ):
        raise BadFilter(f"The filter {key!r} needs one value or a list of them.")
    if len(values) > MAX_VALUES:
        raise BadFilter(f"The filter {key!r} has more than {MAX_VALUES} values.")
    cleaned = {str(value) for value in values}
    if any("\0" in text for text in (key, *cleaned)):
        raise BadFilter(f"The filter {key!r} holds a character that no text can hold.")
    return tuple(sorted(cleaned))
