"""Documents with their texts, passages and waiting vectors, written by one statement.

Row by row through models it took four statements, and composing them cost several times as much as
running them: adding documents spent most of its time there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django.db import connection
from django.utils import timezone

from searchapp.models import Collection, DocumentStatus, Generation, Upload

from .passages import PassageSpan
from .prepared import Prepared

_INSERT = """
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(rows)s::json) AS given (
    place int, uid uuid, path text, title text, metadata jsonb, media_type text, size_bytes bigint,
    page_count int, text text, page_starts jsonb, passages json
  )
), documents AS (
  INSERT INTO searchapp_document (
    uid, collection_id, upload_id, path, title, metadata, media_type, size_bytes, page_count,
    passage_count, status, created_at, updated_at
  )
  SELECT uid, %(collection)s, %(upload)s, path, title, metadata, media_type, size_bytes, page_count,
    json_array_length(passages), %(status)s, %(now)s, %(now)s
  FROM given ORDER BY place
  RETURNING id, uid
), texts AS (
  INSERT INTO searchapp_documenttext (document_id, text, page_starts)
  SELECT documents.id, text, page_starts FROM given JOIN documents USING (uid)
), passages AS (
  INSERT INTO searchapp_passage (
    collection_id, document_id, ordinal, text, start, "end", page_first, page_last, heading_path
  )
  SELECT %(collection)s, documents.id, own.ordinal, own.text, own.start, own.end, own.page_first,
    own.page_last, own.heading_path
  FROM given JOIN documents USING (uid), json_to_recordset(given.passages) AS own (
    ordinal int, text text, start int, "end" int, page_first int, page_last int, heading_path jsonb
  )
  ORDER BY given.place, own.ordinal
  RETURNING id, document_id, ordinal
), pending AS (
  INSERT INTO searchapp_pendingvector (generation_id, passage_id)
  SELECT %(generation)s, id FROM passages WHERE %(generation)s::bigint IS NOT NULL
)
SELECT documents.id, array_remove(array_agg(passages.id ORDER BY ordinal), NULL)
FROM given JOIN documents USING (uid) LEFT JOIN passages ON passages.document_id = documents.id
GROUP BY documents.id, place ORDER BY place
"""


def insert_documents(
    collection: Collection,
    upload: Upload | None,
    generation: Generation | None,
    prepared: Sequence[Prepared],
) -> list[tuple[int, list[int]]]:
    """The new rows' ids, in the order given: of each document, and of its passages in theirs. The
    caller holds the transaction."""
    if not prepared:
        return []
    rows = [_document(place, entry) for place, entry in enumerate(prepared)]
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT,
            {
                "rows": json.dumps(rows, ensure_ascii=False),
                "collection": collection.pk,
                "upload": None if upload is None else upload.pk,
                "generation": None if generation is None else generation.pk,
                "status": DocumentStatus.INDEXING,
                "now": timezone.now(),
            },
        )
        return [(document, passages) for document, passages in cursor.fetchall()]


def _document(place: int, entry: Prepared) -> dict[str, Any]:
    extracted = entry.extracted
    return {
        "place": place,
        "uid": str(entry.uid or uuid4()),
        "path": entry.path,
        "title": entry.title,
        "metadata": dict(entry.metadata),
        "media_type": extracted.media_type[:100],
        "size_bytes": extracted.size_bytes,
        "page_count": len(extracted.page_starts) or None,
        "text": extracted.text,
        "page_starts": list(extracted.page_starts),
        "passages": [
            _passage(ordinal, span, extracted.text) for ordinal, span in enumerate(entry.spans)
        ],
    }


def _passage(ordinal: int, span: PassageSpan, text: str) -> dict[str, Any]:
    return {
        "ordinal": ordinal,
        "text": text[span.start : span.end],
        "start": span.start,
        "end": span.end,
        "page_first": span.page_first,
        "page_last": span.page_last,
        "heading_path": list(span.heading_path),
    }
