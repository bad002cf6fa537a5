"""The dense leg: one partition of vectors per generation, scanned exactly or through HNSW.

Every statement names its partition, so that a search locks and plans nothing else. Passages and
vectors share no foreign key: erasing.py deletes passages first and vectors second, and
`write_vectors` holds the passages it writes for, so no vector outlives its passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection, transaction
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from rerank.inference.models import embedder_facts
from rerank.types import FloatArray
from searchapp.models import Collection, Document, Generation, GenerationState
from searchapp.models.corpus import AnyUser

from .access import visible_sql
from .filters import NO_FILTERS, Filters
from .packing import COPY_END, COPY_START

# pgvector's limits: dimensions of an indexed halfvec, candidates of one HNSW scan.
MAX_INDEXED_DIMENSION = 4_000
MAX_EF_SEARCH = 1_000

# The first of the two keys of an advisory lock.
GENERATING = 7_103


# --- generations -------------------------------------------------------------------------------


def ensure_generation(collection: Collection) -> Generation:
    """The collection's active generation; the first call makes it, by the configured embedder.

    Call it before a long transaction, not within: a new partition locks the parent table. Raises
    ModelNotFound.
    """
    if collection.active_generation_id is not None and collection.active_generation is not None:
        return collection.active_generation
    with transaction.atomic():
        _lock(collection.pk)
        current = (
            Collection.objects.select_related("active_generation")
            .only("active_generation")
            .get(pk=collection.pk)
        )
        generation = current.active_generation
        if generation is None:
            generation = start_generation(collection, settings.EMBED_MODEL)
            activate_generation(generation)
    collection.active_generation = generation
    return generation


def start_generation(collection: Collection, model: str) -> Generation:
    """A new generation beside the active one, with no vectors yet. Raises ModelNotFound."""
    facts = embedder_facts(model)
    with transaction.atomic():
        generation = Generation.objects.create(
            collection=collection, model=facts.name, dimension=facts.dimension
        )
        table = partition(generation)
        with connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("CREATE TABLE {} PARTITION OF searchapp_vector FOR VALUES IN ({})").format(
                    table, sql.Literal(generation.pk)
                )
            )
            # Never to TOAST, where an exact scan would have to fetch each vector apart.
            cursor.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN embedding SET STORAGE PLAIN").format(table)
            )
    return generation


def activate_generation(generation: Generation) -> None:
    """Searches of the collection use this generation from now on; the one before is retired."""
    with transaction.atomic():
        Generation.objects.filter(
            collection_id=generation.collection_id, state=GenerationState.ACTIVE
        ).exclude(pk=generation.pk).update(state=GenerationState.RETIRED)
        generation.state = GenerationState.ACTIVE
        generation.save(update_fields=["state"])
        Collection.objects.filter(pk=generation.collection_id).update(active_generation=generation)


def drop_generation(generation: Generation) -> None:
    """Deletes the generation with its vectors. Raises ValueError for the active one."""
    if Collection.objects.filter(active_generation=generation).exists():
        raise ValueError("The active generation cannot be dropped; activate another one first.")
    with transaction.atomic():
        drop_partitions([generation.pk])
        generation.delete()


def drop_partitions(generation_ids: Sequence[int]) -> None:
    with connection.cursor() as cursor:
        for generation_id in generation_ids:
            cursor.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(_partition_name(generation_id))
            )


# --- writing -----------------------------------------------------------------------------------


def write_vectors(
    generation: Generation, passage_ids: Sequence[int], vectors: FloatArray | NDArray[Any]
) -> int:
    """Stores unit vectors, shape (len(passage_ids), dimension), replacing those already there.

    Passages deleted meanwhile are left out. How many were written. Raises ValueError for a wrong
    shape.
    """
    expected = (len(passage_ids), generation.dimension)
    if np.shape(vectors) != expected:
        raise ValueError(f"vectors have the shape {np.shape(vectors)}, not {expected}")
    if not len(passage_ids):
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        # Held until we commit, against deletion and against a second writer of the same vectors.
        cursor.execute(
            "SELECT id FROM searchapp_passage WHERE id = ANY(%s) AND collection_id = %s "
            "ORDER BY id FOR NO KEY UPDATE",
            [list(passage_ids), generation.collection_id],
        )
        alive = {row[0] for row in cursor.fetchall()}
        place = {passage_id: at for at, passage_id in enumerate(passage_ids) if passage_id in alive}
        ids = sorted(place)
        if not ids:
            return 0
        table = partition(generation)
        cursor.execute(
            sql.SQL("DELETE FROM {} WHERE generation_id = %s AND passage_id = ANY(%s)").format(
                table
            ),
            [generation.pk, ids],
        )
        target: Any = cursor
        copying = sql.SQL(
            "COPY {} (generation_id, passage_id, embedding) FROM STDIN (FORMAT binary)"
        ).format(table)
        with target.copy(copying) as copy:
            copy.write(_copy_vectors(generation, ids, np.asarray(vectors)[[place[i] for i in ids]]))
    return len(ids)


def delete_vectors(collection_id: int, passage_ids: Sequence[int]) -> None:
    """From every generation of the collection, in the caller's transaction."""
    generations = Generation.objects.filter(collection_id=collection_id).values_list(
        "pk", flat=True
    )
    with connection.cursor() as cursor:
        for generation_id in generations:
            cursor.execute(
                sql.SQL("DELETE FROM {} WHERE generation_id = %s AND passage_id = ANY(%s)").format(
                    _partition_name(generation_id)
                ),
                [generation_id, list(passage_ids)],
            )


# --- searching ---------------------------------------------------------------------------------


def dense_candidates(
    collection: Collection,
    generation: Generation,
    user: AnyUser,
    vector: FloatArray,
    depth: int,
    *,
    filters: Filters = NO_FILTERS,
    exact: bool | None = None,
) -> list[tuple[int, float]]:
    """(passage id, cosine similarity), best first, at most `depth`; ties fall to the smaller id.

    Only passages of a collection the user may see that pass the filters. `exact` None: through the
    HNSW index where the generation has one. Raises ValueError for a vector of another dimension.
    """
    if len(vector) != generation.dimension:
        raise ValueError(
            f"The query's vector has {len(vector)} numbers, not {generation.dimension}."
        )
    if depth <= 0:
        return []
    if exact is None:
        exact = not generation.has_ann_index
    query, params = _dense_query(collection, generation, user, vector, depth, filters, exact=exact)
    if exact:
        with connection.cursor() as cursor:
            cursor.execute(query, params)
            rows = cursor.fetchall()
    else:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('hnsw.ef_search', %s, true), "
                "set_config('hnsw.iterative_scan', 'relaxed_order', true)",
                [str(min(max(4 * depth, 200), MAX_EF_SEARCH))],
            )
            cursor.execute(query, params)
            rows = cursor.fetchall()
    scored = [(int(passage_id), 1.0 - float(distance)) for passage_id, distance in rows]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def dense_rank(generation: Generation, vector: FloatArray, document: Document) -> int | None:
    """The rank of the document's nearest passage among all vectors; None when it has none."""
    statement = sql.SQL("""
        WITH own AS (
            SELECT min(v.embedding <=> %(vector)s::halfvec) AS distance FROM {partition} v
            WHERE v.passage_id IN (SELECT id FROM searchapp_passage WHERE document_id = %(id)s)
        )
        SELECT own.distance, (
            SELECT count(*) FROM {partition} v
            WHERE v.embedding <=> %(vector)s::halfvec < own.distance
        ) FROM own
    """).format(partition=partition(generation))
    with connection.cursor() as cursor:
        cursor.execute(statement, {"vector": HalfVector(vector).to_text(), "id": document.pk})
        row = cursor.fetchone()
    return int(row[1]) + 1 if row and row[0] is not None else None


def vector_count(generation: Generation) -> int:
    """How many passages have their vector in this generation."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(partition(generation)))
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def _dense_query(
    collection: Collection,
    generation: Generation,
    user: AnyUser,
    vector: FloatArray,
    depth: int,
    filters: Filters,
    *,
    exact: bool,
) -> tuple[sql.Composed, list[Any]]:
    """Exact: ties ordered in SQL, and the bare column, which no HNSW index serves. Else the indexed
    expression, whose order is all that the index can give."""
    visible, visible_params = visible_sql(collection, user)
    parts = {
        "partition": partition(generation),
        "dimension": sql.SQL(str(int(generation.dimension))),
        "visible": sql.SQL(visible),
        "filter": sql.SQL(""),
    }
    params: list[Any] = [HalfVector(vector).to_text(), *visible_params]
    if filters:
        condition, filter_params = filters.document_sql("d", collection)
        parts["filter"] = sql.SQL(
            "AND EXISTS (SELECT 1 FROM searchapp_passage p "
            "JOIN searchapp_document d ON d.id = p.document_id "
            "WHERE p.id = v.passage_id AND {})"
        ).format(sql.SQL(condition))
        params += filter_params
    if exact:
        distance = "v.embedding <=> %s::halfvec"
        order = "distance, v.passage_id"
    else:
        distance = "v.embedding::halfvec({dimension}) <=> %s::halfvec({dimension})"
        order = "distance"
    template = (
        f"SELECT v.passage_id, {distance} AS distance FROM {{partition}} v "
        f"WHERE EXISTS ({{visible}}) {{filter}} ORDER BY {order} LIMIT %s"
    )
    return sql.SQL(template).format(**parts), [*params, depth]


# -----------------------------------------------------------------------------------------------


def partition(generation: Generation) -> sql.Identifier:
    """The name of the generation's own table."""
    return _partition_name(generation.pk)


def _partition_name(generation_id: int) -> sql.Identifier:
    return sql.Identifier(f"searchapp_vector_g{int(generation_id)}")


def _copy_vectors(generation: Generation, ids: Sequence[int], vectors: NDArray[Any]) -> bytes:
    """A whole binary COPY, made as one array of records (all big-endian)."""
    dimension = generation.dimension
    record = np.dtype(
        [
            ("fields", ">i2"),
            ("generation_size", ">i4"),
            ("generation", ">i8"),
            ("passage_size", ">i4"),
            ("passage", ">i8"),
            ("vector_size", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f2", (dimension,)),
        ]
    )
    rows = np.zeros(len(ids), record)
    rows["fields"], rows["generation_size"], rows["passage_size"] = 3, 8, 8
    rows["generation"], rows["passage"] = generation.pk, ids
    rows["vector_size"], rows["dimension"] = 4 + 2 * dimension, dimension
    rows["vector"] = vectors
    return COPY_START + rows.tobytes() + COPY_END


def _lock(collection_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [GENERATING, collection_id % 2**31])
