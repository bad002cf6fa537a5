"""The approximate index of large generations: built beside searches and inserts, and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.conf import settings
from django.db import OperationalError, connection
from pgvector import HalfVector
from psycopg import sql

from searchapp.models import Generation, GenerationState

from .access import operator
from .vectors import MAX_INDEXED_DIMENSION, dense_candidates, partition, vector_count

ANN_BUILD_MEMORY = "512MB"
# The first of the two keys of an advisory lock.
BUILDING = 7_104


def needs_ann_index(generation: Generation) -> bool:
    """Whether it has more vectors than an exact scan should visit, and no index yet."""
    if generation.has_ann_index or generation.dimension > MAX_INDEXED_DIMENSION:
        return False
    return vector_count(generation) > settings.EXACT_SCAN_MAX_PASSAGES


def build_ann_index(generation: Generation) -> None:
    """Builds the HNSW index while searches and inserts go on; not to be called in a transaction.

    An index left invalid by an earlier, broken attempt is dropped first. A second builder of the
    same generation returns at once, and so does one who comes after the first has finished.
    """
    if generation.dimension > MAX_INDEXED_DIMENSION:
        raise ValueError(f"HNSW takes {MAX_INDEXED_DIMENSION} dimensions at most.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [BUILDING, generation.pk % 2**31])
        row = cursor.fetchone()
        if not row or not row[0]:
            return
        try:
            row_now = Generation.objects.filter(pk=generation.pk)
            # Whoever read its row before another worker finished would drop a good index in use.
            if row_now.filter(has_ann_index=False).exists():
                _create_ann_index(cursor, generation)
                row_now.update(has_ann_index=True)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [BUILDING, generation.pk % 2**31])
    generation.has_ann_index = True


def _create_ann_index(cursor: Any, generation: Generation) -> None:
    name = sql.Identifier(f"searchapp_vector_g{generation.pk}_hnsw")
    create = sql.SQL(
        "CREATE INDEX CONCURRENTLY {} ON {} "
        "USING hnsw ((embedding::halfvec({})) halfvec_cosine_ops)"
    ).format(name, partition(generation), sql.Literal(generation.dimension))
    try:
        # A graph that outgrows this memory is finished many times slower.
        cursor.execute("SET maintenance_work_mem = %s", [ANN_BUILD_MEMORY])
        cursor.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
        try:
            cursor.execute(create)
        except OperationalError:  # parallel workers need shared memory that containers may lack
            cursor.execute("SET max_parallel_maintenance_workers = 0")
            cursor.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
            cursor.execute(create)
    finally:
        cursor.execute("RESET maintenance_work_mem")
        cursor.execute("RESET max_parallel_maintenance_workers")


def build_missing_ann_indexes() -> int:
    """Builds the index of every active generation that needs one; how many."""
    active = Generation.objects.filter(state=GenerationState.ACTIVE, has_ann_index=False)
    wanted = [generation for generation in active if needs_ann_index(generation)]
    for generation in wanted:
        build_ann_index(generation)
    return len(wanted)


def ann_recall(generation: Generation, sample: int = 20, depth: int = 100) -> float:
    """Share of the exact `depth` nearest that the HNSW index finds, for sampled stored vectors.

    1.0 when there is no index or nothing to sample.
    """
    if not generation.has_ann_index:
        return 1.0
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("SELECT embedding::text FROM {} ORDER BY random() LIMIT %s").format(
                partition(generation)
            ),
            [sample],
        )
        vectors = [np.array(HalfVector.from_text(row[0]).to_list()) for row in cursor.fetchall()]
    found = wanted = 0
    for vector in vectors:
        exact, near = (
            {
                passage_id
                for passage_id, _ in dense_candidates(
                    generation.collection, generation, operator(), vector, depth, exact=is_exact
                )
            }
            for is_exact in (True, False)
        )
        found += len(exact & near)
        wanted += len(exact)
    return found / wanted if wanted else 1.0
