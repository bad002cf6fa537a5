"""The texts in documents' metadata as rows that an index keeps in order (docs/decisions/0020)."""

from __future__ import annotations

from django.db import models

# In characters. A longer text is cut, a longer name has no rows.
MAX_NAME = 200
MAX_TEXT = 100
# Between name and text; a name that holds it has no rows.
SEPARATOR = "\x01"


class DocumentAttribute(models.Model):
    """One text of one document: its name, SEPARATOR, and the text's first MAX_TEXT characters.

    Written by a trigger on the table of documents alone (migration 0011), hence without keys to
    check. Name and text are one column because statistics of a column with the texts of all names
    say little of a single name's.
    """

    pk = models.CompositePrimaryKey("collection_id", "entry", "document_id")
    collection = models.ForeignKey(
        "Collection",
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    # Compared byte by byte, which is the order of code points.
    entry = models.TextField(db_collation="C")
    document = models.ForeignKey(
        "Document",
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )

    def __str__(self) -> str:
        return f"{self.entry.partition(SEPARATOR)[0]} of document {self.document_id}"
