"""A file that a program sent as one document: whatever is read from it goes to the one path it was
announced under, in one transaction, so that a search sees the old text or the new one."""

from __future__ import annotations

from dataclasses import replace

from django.db import transaction

from searchapp.models import Document
from searchapp.search import erasing, vectors

from .extract.records import ExtractedDocument
from .extract.rows import shown
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
        prepared = self._prepared(self._one())
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
        if self._holds_rows():
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
        whole = replace(document, size_bytes=self._upload.size_bytes)
        return Prepared(whole, self._upload.document_path, title, spans, self._upload.metadata)

    def _holds_rows(self) -> bool:
        """A file that is no table is named like the upload; rows have a sign and more behind."""
        return self._read[0].path.startswith(f"{self._upload.name}#")

    def _one(self) -> ExtractedDocument:
        first = self._read[0]
        if not self._holds_rows():
            return first
        text, starts = joined([_page(each) for each in self._read])
        return ExtractedDocument(
            path=first.path, text=text, media_type=first.media_type, page_starts=starts
        )


def _page(row: ExtractedDocument) -> str:
    """All of a row: as a page it has no title and no metadata of its own to be found by."""
    text = row.text.strip()
    told = {"", *text.splitlines()}
    labels = [f"{key}: {shown(value)}" for key, value in row.metadata.items()]
    return "\n".join([*(line for line in [row.title, *labels] if line not in told), text])
