"""What one can filter a collection by: file types, and metadata seen in its latest documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.core.cache import cache

from searchapp.models import Collection, Document

KEPT_SECONDS = 60
SAMPLE_DOCUMENTS = 200
MAX_VALUES = 40

TYPE_NAMES = {
    "application/pdf": "PDF",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "Word",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "PowerPoint",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "Excel",
    "application/json": "JSON",
    "application/jsonl": "JSON lines",
    "application/x-ndjson": "JSON lines",
    "text/csv": "CSV",
    "text/tab-separated-values": "TSV",
    "text/html": "HTML",
    "text/markdown": "Markdown",
    "text/plain": "Text",
}


@dataclass(frozen=True)
class Facets:
    """`types`: (media type, its name). `examples`: "key=value" pairs, most frequent first."""

    types: Sequence[tuple[str, str]] = ()
    examples: Sequence[str] = ()
    languages: Sequence[str] = ()


def facets(collection: Collection) -> Facets:
    """Read from the database once a minute at most."""
    key = f"facets-{collection.pk}"
    found = cache.get(key)
    if not isinstance(found, Facets):
        found = _read(collection)
        cache.set(key, found, KEPT_SECONDS)
    return found


def type_name(media_type: str) -> str:
    return TYPE_NAMES.get(media_type, media_type)


def _read(collection: Collection) -> Facets:
    documents = Document.objects.filter(collection=collection)
    types = documents.order_by("media_type").values_list("media_type", flat=True).distinct()[:30]
    counts: dict[str, int] = {}
    for metadata in documents.order_by("-pk").values_list("metadata", flat=True)[:SAMPLE_DOCUMENTS]:
        for name, value in metadata.items():
            for each in value if isinstance(value, list) else [value]:
                pair = f"{name}={each}"
                if len(pair) <= 80:
                    counts[pair] = counts.get(pair, 0) + 1
    frequent = sorted(counts, key=lambda pair: (-counts[pair], pair))
    prefix = "language="
    return Facets(
        types=[(each, type_name(each)) for each in types],
        examples=frequent[:MAX_VALUES],
        languages=sorted(pair.removeprefix(prefix) for pair in frequent if pair.startswith(prefix)),
    )
