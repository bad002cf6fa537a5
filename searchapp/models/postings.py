"""The BM25 index: immutable segments of packed postings (docs/decisions/0002)."""

from __future__ import annotations

from django.db import models


class Segment(models.Model):
    """A batch of passages indexed in one transaction, or the merge of several such batches.

    `passage_ids` is little-endian int64 and `lengths` little-endian uint32 (terms per passage); a
    passage's place in both is its local ordinal. `deleted` is a packed bitmap over local ordinals
    (numpy.packbits), empty when nothing is deleted.
    """

    collection = models.ForeignKey("Collection", on_delete=models.CASCADE, related_name="segments")
    passage_count = models.PositiveIntegerField()
    passage_ids = models.BinaryField()
    lengths = models.BinaryField()
    deleted = models.BinaryField(default=b"")
    deleted_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"segment {self.pk} of collection {self.collection_id}"


class Posting(models.Model):
    """All postings of one term in one segment: ordinals and term frequencies, packed."""

    collection = models.ForeignKey(
        "Collection",
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    segment = models.ForeignKey(
        Segment, on_delete=models.CASCADE, related_name="postings", db_constraint=False
    )
    term = models.TextField()
    # Passages of the segment that hold the term, deleted ones included.
    passage_count = models.PositiveIntegerField()
    # uint32 local ordinals ascending, then uint16 frequencies (65535 caps), both little-endian.
    data = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection", "term", "segment"], name="one_posting")
        ]

    def __str__(self) -> str:
        return f"{self.term} in segment {self.segment_id}"
