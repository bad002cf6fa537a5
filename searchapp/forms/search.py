"""The query string of a search, as clean values or readable errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.http import QueryDict

from searchapp.search.conditions import BadFilter
from searchapp.search.configs import MAX_INSTRUCTION_CHARACTERS
from searchapp.search.pipeline import MAX_QUERY_CHARACTERS
from searchapp.search.slopegraph import ROW_CHOICES

from .filter_texts import all_of, read_filter

MAX_VALUES = 20
MAX_FILTER_CHARACTERS = 4000

View = Literal["list", "compare", "trace"]
Order = Literal["reranked", "first"]


@dataclass(frozen=True)
class SearchParameters:
    """What an address of the search page says.

    `instruction` None: the collection's own; a text, also the empty one, replaces it. `trace`: the
    stored search this address continues (another page or order of it), searched again when gone.
    """

    query: str = ""
    collection: str = ""
    instruction: str | None = None
    types: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    # As typed: year>=2024, place!=sea, or a condition in JSON.
    conditions: tuple[str, ...] = ()
    view: View = "list"
    order: Order = "reranked"
    page: int = 1
    rows: int = 10
    trace: UUID | None = None
    wait: bool = False

    def filters(self) -> dict[str, Any]:
        """For the pipeline: several values of one key mean any of them, different keys and
        conditions all."""
        filters: dict[str, Any] = {}
        if self.types:
            filters["media_type"] = list(self.types)
        values: dict[str, list[str]] = {}
        for key, value in [*(("language", each) for each in self.languages), *self.metadata]:
            values.setdefault(key, []).append(value)
        if values:
            filters["metadata"] = values
        if where := all_of(self.conditions):
            filters["where"] = where
        return filters

    def with_changes(self, **changes: Any) -> SearchParameters:
        return replace(self, **changes)

    def query_string(self, *, display_only: bool = False) -> str:
        """The address part that `SearchForm` reads back to the same values; defaults left out."""
        pairs: list[tuple[str, str]] = []
        if not display_only:
            pairs += [("q", self.query), ("collection", self.collection)]
            if self.instruction is not None:
                pairs.append(("instruction", self.instruction))
            pairs += [("type", each) for each in self.types]
            pairs += [("language", each) for each in self.languages]
            pairs += [("meta", f"{key}={value}") for key, value in self.metadata]
            pairs += [("meta", each) for each in self.conditions]
        optional = [
            ("view", self.view, self.view != "list"),
            ("order", self.order, self.order != "reranked"),
            ("page", str(self.page), self.page > 1),
            ("rows", str(self.rows), self.rows != 10),
            ("trace", str(self.trace), self.trace is not None and not display_only),
            ("wait", "1", self.wait),
        ]
        pairs += [(name, value) for name, value, present in optional if present]
        return urlencode(pairs)


class SearchForm(forms.Form):
    """`is_valid()`, then `parameters`. Odd values of view, order, page and rows mean the default:
    they come from addresses, not from typing."""

    q = forms.CharField(
        required=False,
        max_length=MAX_QUERY_CHARACTERS,
        error_messages={
            "max_length": "The query has %(show_value)d characters; "
            "searches take up to %(limit_value)d. Shorten it to what matters most."
        },
    )
    collection = forms.CharField(required=False, max_length=64)
    instruction = forms.CharField(
        required=False,
        max_length=MAX_INSTRUCTION_CHARACTERS,
        error_messages={
            "max_length": "The instruction has %(show_value)d characters; "
            "it may have up to %(limit_value)d."
        },
    )
    trace = forms.UUIDField(required=False)

    def clean_trace(self) -> UUID | None:
        return cast("UUID | None", self.cleaned_data["trace"])

    def clean(self) -> dict[str, Any]:
        """Metadata filters are read here, because each may be given several times."""
        cleaned = super().clean() or self.cleaned_data
        cleaned["meta"], cleaned["conditions"] = [], []
        for text in self._listed("meta", MAX_FILTER_CHARACTERS):
            try:
                read = read_filter(text)
            except BadFilter as error:
                self.add_error(None, str(error))
                continue
            if isinstance(read, tuple):
                cleaned["meta"].append(read)
            else:
                cleaned["conditions"].append(text)
        return cleaned

    @property
    def parameters(self) -> SearchParameters:
        """Of a valid form or an invalid one; what could not be read is left at its default."""
        cleaned = getattr(self, "cleaned_data", {})
        data = self.data
        instruction = cleaned.get("instruction", "") if "instruction" in data else None
        return SearchParameters(
            query=cleaned.get("q", "") or "",
            collection=cleaned.get("collection", "") or "",
            instruction=instruction,
            types=self._listed("type"),
            languages=self._listed("language"),
            metadata=tuple(cleaned.get("meta", ())),
            conditions=tuple(cleaned.get("conditions", ())),
            view="compare" if data.get("view") == "compare" else "list",
            order="first" if data.get("order") == "first" else "reranked",
            page=_whole(data, "page", 1, 1000),
            rows=_whole(data, "rows", 10, 100) if data.get("rows") in _ROWS else 10,
            trace=cleaned.get("trace"),
            wait=data.get("wait") == "1",
        )

    def _listed(self, name: str, longest: int = 300) -> tuple[str, ...]:
        """Every value given for the name once, the first twenty, none with a null character."""
        given = self.data.getlist(name) if isinstance(self.data, QueryDict) else []
        texts = (text.strip()[:longest] for text in given if "\x00" not in text)
        return tuple(dict.fromkeys(text for text in texts if text))[:MAX_VALUES]


_ROWS = {str(rows) for rows in ROW_CHOICES}


def _whole(data: Mapping[str, Any], name: str, default: int, limit: int) -> int:
    text = str(data.get(name, ""))
    return min(max(int(text), 1), limit) if text.isascii() and text.isdigit() else default
