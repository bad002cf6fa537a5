"""Deleting documents and collections with all that the index holds of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable

from django.core.files.storage import default_storage
from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

from searchapp.models import Collection, Generation, Passage, Upload
from searchapp.models.training import training_folder

from .segments import delete_passages
from .vectors import delete_vectors, drop_partitions

# How often an erasure begins that a deadlock ends.
ERASE_ATTEMPTS = 5
# In this order, so that no row is left pointing at a deleted one.
_ERASE = [
    "DELETE FROM searchapp_posting WHERE collection_id = %s",
    "DELETE FROM searchapp_segment WHERE collection_id = %s",
    "DELETE FROM searchapp_pendingvector USING searchapp_generation g "
    "WHERE g.id = generation_id AND g.collection_id = %s",
    "DELETE FROM searchapp_passage WHERE collection_id = %s",
    "DELETE FROM searchapp_documenttext USING searchapp_document d "
    "WHERE d.id = document_id AND d.collection_id = %s",
    "DELETE FROM searchapp_document WHERE collection_id = %s",
    "DELETE FROM searchapp_trace WHERE collection_id = %s",
]


def delete_documents(collection: Collection, document_ids: Iterable[int]) -> int:
    """Deletes documents with their passages, postings and vectors, all or nothing; how many.

    Documents of other collections are left alone.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        owned = list(
            collection.documents.filter(pk__in=list(document_ids))
            .order_by("pk")
            .select_for_update()
            .values_list("pk", flat=True)
        )
        if not owned:
            return 0
        passages = Passage.objects.filter(document_id__in=owned).values_list("pk", flat=True)
        passage_ids = list(passages)
        delete_passages(collection, passage_ids)
        cursor.execute(
            "DELETE FROM searchapp_pendingvector WHERE passage_id = ANY(%s)", [passage_ids]
        )
        cursor.execute("DELETE FROM searchapp_passage WHERE document_id = ANY(%s)", [owned])
        # After the passages: their deletion has waited for whoever was writing their vectors.
        delete_vectors(collection.pk, passage_ids)
        cursor.execute("DELETE FROM searchapp_documenttext WHERE document_id = ANY(%s)", [owned])
        cursor.execute("DELETE FROM searchapp_document WHERE id = ANY(%s)", [owned])
    return len(owned)


def erase_collection(collection: Collection) -> None:
    """Deletes the collection with everything in it, its stored files included.

    Whoever writes into it meanwhile takes locks in an order of its own; when the two stop each
    other, PostgreSQL ends one of them, and if it was this one, it begins again.
    """
    for attempt in range(1, ERASE_ATTEMPTS + 1):
        try:
            return _erase(collection)
        except OperationalError as error:
            is_deadlock = isinstance(error.__cause__, DeadlockDetected)
            if not is_deadlock or connection.in_atomic_block or attempt == ERASE_ATTEMPTS:
                raise
            time.sleep(0.1 * attempt)


def _erase(collection: Collection) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        # Uploads before the collection, the order in which a worker that ingests locks them.
        uploads = Upload.objects.filter(collection=collection).order_by("pk")
        names = [
            name for name in uploads.select_for_update().values_list("file", flat=True) if name
        ]
        # Whoever still writes into the collection either commits before this or fails.
        cursor.execute(
            "SELECT 1 FROM searchapp_collection WHERE id = %s FOR UPDATE", [collection.pk]
        )
        generations = list(
            Generation.objects.filter(collection=collection).values_list("pk", flat=True)
        )
        for statement in _ERASE:
            cursor.execute(statement, [collection.pk])
        # The few rows left: configs, members, uploads, generations. Not by the caller's object,
        # which would lose its key even when the transaction fails.
        Collection.objects.filter(pk=collection.pk).delete()
        drop_partitions(generations)
        transaction.on_commit(lambda: _delete_files(names))
        folder = training_folder() / str(collection.pk)
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))


def _delete_files(names: Iterable[str]) -> None:
    for name in names:
        default_storage.delete(name)
