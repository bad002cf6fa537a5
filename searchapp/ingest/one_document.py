"""A file that a program sent as one document: whatever is read from it goes to the one path it was
announced under, in one transaction, so that a search sees the old text or the new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from django.db import transaction

from searchapp.models import Document
from searchapp.search import erasing, vectors

from .extract.records import ExtractedDocument
from .lease import Lease
from .paged import joined, split_pages
from .passages import fit_title, split
from .prepared import Prepared
from .queueing import kick_embedding
from .writing import passage_measure, write_documents


class Superseded(Exception):
    """The document was deleted or announced anew; the message says so."""


class OneDocumentWriter:
    """Collects what one upload holds and writes it at the end, under its lease. Rows of a table
    become pages that are not read one after the other."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._upload = lease.upload
        self._read: list[ExtractedDocument] = []
        self.documents = 0

    def add(self, document: ExtractedDocument) -> None:
        self._read.append(document)

    def flush(self) -> None:
        """Raises LeaseLost, Superseded."""
        if not self._read:
            return
        collection = self._upload.collection
        generation = vectors.ensure_generation(collection)
        prepared = self._prepared(_one(self._read))
        with transaction.atomic():
            self._lease.renew(documents_done=1, passages_done=len(prepared.spans))
            row = (
                Document.objects.filter(
                    collection=collection, path=prepared.path, upload=self._upload
                )
                .select_for_update()
                .first()
            )
            if row is None:
                raise Superseded("The document was deleted or replaced before this file was read.")
            erasing.delete_documents(collection, [row.pk])
            write_documents(collection, self._upload, generation, [replace(prepared, uid=row.uid)])
            self._lease.renew()
            kick_embedding()
        self.documents = 1

    def drop_vanished(self) -> int:
        """Nothing: the path is all that an earlier version of the file had."""
        return 0

    def _prepared(self, document: ExtractedDocument) -> Prepared:
        self._lease.heartbeat()
        counter, sizes = passage_measure()
        title = fit_title(document.title, counter)
        if len(self._read) > 1:
            spans = split_pages(document.text, document.page_starts, counter, title, sizes)
        else:
            spans = split(
                document.text,
                counter=counter,
                title=title,
                headings=document.headings,
                page_starts=document.page_starts,
                sizes=sizes,
            )
        return Prepared(document, self._upload.document_path, title, spans, self._upload.metadata)


def _one(documents: Sequence[ExtractedDocument]) -> ExtractedDocument:
    first = documents[0]
    if len(documents) == 1:
        return first
    text, starts = joined([each.text.strip() for each in documents])
    return ExtractedDocument(
        path=first.path,
        text=text,
        media_type=first.media_type,
        page_starts=starts,
        size_bytes=sum(each.size_bytes for each in documents),
    )
