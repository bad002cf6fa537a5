"""Extracted documents to rows: document, text, passages, postings and pending vectors, a batch of
documents per transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import F, QuerySet

from rerank.errors import RerankError
from rerank.inference.models import embedder_facts
from searchapp.models import Collection, Document, Generation, Upload
from searchapp.models.corpus import compose_indexed_text
from searchapp.search import erasing, segments, vectors

from .extract.records import ExtractedDocument
from .finishing import settle
from .lease import Lease
from .passages import WINDOW_TOKENS, Sizes, fit_title, split
from .prepared import Prepared
from .queueing import kick_embedding
from .rows import insert_documents
from .tokens import TokenCounter, token_counter

logger = logging.getLogger(__name__)

# A transaction takes documents until one of these is reached.
_MAX_DOCUMENTS = 100
_MAX_CHARACTERS = 300_000
# Two uploads may write the same path at once; the second then finds and replaces the first's.
_TRIES = 4
_DELETE_BATCH = 200


class DocumentWriter:
    """Collects the documents of one upload and writes them in batches under its lease."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._upload = lease.upload
        self._collection = lease.upload.collection
        self._counter, self._sizes = passage_measure()
        self._generation: Generation | None = None
        self._waiting: list[ExtractedDocument] = []
        self._characters = 0
        self.documents = 0

    def add(self, document: ExtractedDocument) -> None:
        """Raises LeaseLost, Paused."""
        self._waiting.append(document)
        self._characters += len(document.text)
        if len(self._waiting) >= _MAX_DOCUMENTS or self._characters >= _MAX_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Raises LeaseLost, Paused."""
        if not self._waiting:
            return
        if self._generation is None:
            self._generation = vectors.ensure_generation(self._collection)
        fresh = self._without_finished(self._waiting)
        prepared = [self._prepare(document) for document in fresh]
        for tries_left in reversed(range(_TRIES)):
            try:
                self._write(prepared)
                break
            except (IntegrityError, OperationalError) as error:
                if not tries_left:
                    raise
                logger.info("writing a batch of upload %s again: %s", self._upload.pk, error)
        self.documents += len(self._waiting)
        self._waiting = []
        self._characters = 0
        self._lease.check_pause()

    def drop_vanished(self) -> int:
        """Removes what an earlier version of this file held and this one lacks; how many documents.

        A table or corpus of the same name replaces the earlier one whole, as a single file does.
        """
        earlier = Document.objects.filter(
            collection=self._collection,
            upload__name=self._upload.name,
            upload__parent=self._upload.parent_id,
            upload__document_path="",
            upload_id__lt=self._upload.pk,
        )
        self._lease.renew()
        return delete_documents(earlier.values_list("pk", flat=True))

    def _without_finished(self, documents: Sequence[ExtractedDocument]) -> list[ExtractedDocument]:
        """Without repeated paths and without those an earlier attempt of this upload wrote."""
        by_path: dict[str, ExtractedDocument] = {}
        for document in documents:
            by_path.setdefault(_path(document), document)
        if self._upload.attempts > 1:
            done = Document.objects.filter(
                collection=self._collection, upload=self._upload, path__in=list(by_path)
            ).values_list("path", "passage_count")
            passages = 0
            for path, count in done:
                del by_path[path]
                passages += count
            self._lease.renew(
                documents_done=F("documents_done") + len(done),
                passages_done=F("passages_done") + passages,
            )
        return list(by_path.values())

    def _prepare(self, document: ExtractedDocument) -> Prepared:
        self._lease.heartbeat()
        title = fit_title(document.title, self._counter)
        spans = split(
            document.text,
            counter=self._counter,
            title=title,
            headings=document.headings,
            page_starts=document.page_starts,
            sizes=self._sizes,
        )
        metadata = {**document.metadata, **self._upload.metadata}
        return Prepared(document, _path(document), title, spans, metadata)

    def _write(self, prepared: Sequence[Prepared]) -> None:
        if not prepared:
            return
        with transaction.atomic():
            self._lease.renew(
                documents_done=F("documents_done") + len(prepared),
                passages_done=F("passages_done") + sum(len(entry.spans) for entry in prepared),
            )
            replaced = Document.objects.filter(
                collection=self._collection, path__in=[entry.path for entry in prepared]
            )
            replaced_uploads = _delete(self._collection, replaced)[1]
            write_documents(self._collection, self._upload, self._generation, prepared)
            # Splitting may take long, and the lease of a long transaction must outlive it.
            self._lease.renew()
            kick_embedding()
        settle(replaced_uploads - {self._upload.pk})


def passage_measure() -> tuple[TokenCounter, Sizes]:
    """How passages are counted and how large they may be, by the configured embedder."""
    try:
        facts = embedder_facts(settings.EMBED_MODEL)
    except RerankError as error:
        logger.warning("sizes of passages are estimated: %s", error)
        return token_counter(None), Sizes()
    window = min(WINDOW_TOKENS, facts.max_tokens - 2)
    sizes = Sizes(window=window, target=min(Sizes().target, window))
    return token_counter(str(facts.tokenizer_file)), sizes


def write_documents(
    collection: Collection,
    upload: Upload | None,
    generation: Generation | None,
    prepared: Sequence[Prepared],
) -> list[int]:
    """Rows of new documents with all that belongs to them; their ids, in the order given. The
    caller holds the transaction."""
    written = insert_documents(collection, upload, generation, prepared)
    segments.index_passages(
        collection,
        [
            (
                passage_id,
                compose_indexed_text(
                    entry.title,
                    list(span.heading_path),
                    entry.extracted.text[span.start : span.end],
                ),
            )
            for (_, passage_ids), entry in zip(written, prepared, strict=True)
            for passage_id, span in zip(passage_ids, entry.spans, strict=True)
        ],
    )
    return [document_id for document_id, _ in written]


def delete_documents(document_ids: Iterable[int]) -> int:
    """Removes documents with their passages, postings and vectors; how many there were.

    In transactions of some hundred documents, so that a large removal blocks nobody for long.
    """
    ids = list(document_ids)
    removed = 0
    for at in range(0, len(ids), _DELETE_BATCH):
        uploads: set[int] = set()
        with transaction.atomic():
            found = Document.objects.filter(pk__in=ids[at : at + _DELETE_BATCH])
            for collection in Collection.objects.filter(
                pk__in=found.order_by().values_list("collection_id", flat=True).distinct()
            ):
                count, theirs = _delete(collection, found.filter(collection=collection))
                removed += count
                uploads |= theirs
        settle(uploads)
    return removed


def _delete(collection: Collection, documents: QuerySet[Document]) -> tuple[int, set[int]]:
    """Removes the documents of a query, locking them first: how many, and whose uploads."""
    rows = list(documents.order_by("id").select_for_update().values_list("id", "upload_id"))
    if rows:
        erasing.delete_documents(collection, [row[0] for row in rows])
    return len(rows), {row[1] for row in rows if row[1] is not None}


def _path(document: ExtractedDocument) -> str:
    return document.path[-1024:]
