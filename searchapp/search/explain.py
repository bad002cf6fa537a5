"""Why a document is not where somebody expects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from django.conf import settings
from django.utils.timezone import now

from rerank.ranking.analysis import query_terms, terms
from searchapp.engine import remote
from searchapp.engine.sockets import EmbedSocket
from searchapp.models import Collection, Document, DocumentStatus, SearchConfig, Trace

from .access import operator
from .filters import read_filters
from .lexical import lexical_candidates
from .result import Hit, SearchResult
from .vectors import dense_rank

Kind = Literal[
    "present", "other collection", "not ready", "newer", "filtered", "below threshold", "not found"
]
MAX_PASSAGES = 500


@dataclass(frozen=True)
class Explanation:
    """`reason` is one sentence for people, `details` what was looked at on the way."""

    kind: Kind
    reason: str
    details: Sequence[str] = field(default_factory=tuple)


def explain_missing(
    trace: Trace, document: Document, embedder: EmbedSocket | None = None
) -> Explanation:
    """Where the document went in a stored search. Looks at the index as it is now.

    The caller has checked that the reader may see both. `embedder` None: the workers'.
    """
    result = SearchResult.from_json(trace.result)
    if document.collection_id != trace.collection_id:
        return Explanation("other collection", "It is not in the collection that was searched.")
    hits = [hit for hit in result.hits if hit.document_id == document.pk]
    if hits:
        return _of_hit(min(hits, key=lambda hit: hit.rank), result, trace.config)
    if document.created_at > trace.created_at:
        return Explanation("newer", "It was added after this search.")
    if document.status == DocumentStatus.FAILED:
        return Explanation("not ready", "It could not be indexed.")
    if not document.passages.exists():
        still = document.status == DocumentStatus.INDEXING
        reason = "It is still being indexed." if still else "It holds no text to search."
        return Explanation("not ready", reason)
    if not _passes_filters(document, result):
        return Explanation("filtered", "The filters of this search leave it out.")
    details = [
        _by_words(trace, document, result),
        _by_meaning(trace, document, result, embedder or remote.embedder()),
    ]
    details = [detail for detail in details if detail]
    return Explanation("not found", "No leg of the first stage brought it in.", details)


def _of_hit(hit: Hit, result: SearchResult, config: SearchConfig) -> Explanation:
    if hit.filtered_out:
        relevance = f"relevance {hit.relevance:.3f}" if hit.relevance is not None else "no score"
        return Explanation(
            "below threshold", f"It was found, but left out: {hit.filtered_out} ({relevance})."
        )
    details = []
    if result.rerank.status == "ok" and hit.relevance is None:
        details.append(
            f"It was at rank {hit.first_stage_rank} of the first stage; "
            f"only the first {config.rerank_depth} are reranked."
        )
    elif hit.movement:
        way = "up" if hit.movement > 0 else "down"
        details.append(
            f"The rerank moved it {way} {abs(hit.movement)} places, from {hit.first_stage_rank}."
        )
    return Explanation("present", f"It is there, at rank {hit.rank}.", details)


def _passes_filters(document: Document, result: SearchResult) -> bool:
    filters = read_filters(result.filters)
    if not filters:
        return True
    condition, params = filters.document_sql("searchapp_document")
    return Document.objects.filter(pk=document.pk).extra(where=[condition], params=params).exists()


def _by_words(trace: Trace, document: Document, result: SearchResult) -> str:
    if result.legs["lexical"].status == "skipped":
        return f"Words: {result.legs['lexical'].reason}"
    collection, config = trace.collection, trace.config
    wanted = query_terms(result.query, collection.language)
    texts = document.passages.select_related("document").order_by("ordinal")[:MAX_PASSAGES]
    held: set[str] = set()
    for passage in texts:
        held.update(terms(passage.indexed_text, collection.language))
    missing = [word for word in _words(result.query, collection) if not held & word[1]]
    if not held & set(wanted):
        return "Words: it holds none of the words of the query."
    ranking = lexical_candidates(
        collection,
        operator(),
        wanted,
        10**9,
        variant="okapi" if config.bm25_variant == "okapi" else "lucene",
        k1=config.bm25_k1,
        b=config.bm25_b,
        filters=read_filters(result.filters),
    )
    own = set(document.passages.values_list("pk", flat=True))
    rank = next((at for at, (each, _) in enumerate(ranking, 1) if each in own), None)
    sentence = f"Words: its best passage is at rank {rank:,} by words" if rank else "Words: no rank"
    if rank and rank <= config.lexical_depth:
        sentence += ", within the depth now; the index has changed since"
    elif rank:
        sentence += f"; the first {config.lexical_depth} go on"
    if missing:
        listed = ", ".join(f"“{word}”" for word, _ in missing[:10])
        sentence += f". It does not hold {listed}"
    return f"{sentence}."


def _words(query: str, collection: Collection) -> list[tuple[str, set[str]]]:
    """The words of the query as typed, once each, with their terms."""
    wanted = set(query_terms(query, collection.language))
    found: dict[str, set[str]] = {}
    for word in query.split():
        own = wanted & set(terms(word, collection.language))
        if own:
            found.setdefault(word.strip(".,:;!?()\"'"), own)
    return list(found.items())


def _by_meaning(
    trace: Trace, document: Document, result: SearchResult, embedder: EmbedSocket
) -> str:
    generation = trace.collection.active_generation
    leg = result.legs["dense"]
    if leg.status == "skipped" or generation is None:
        return f"Meaning: {leg.reason}" if leg.reason else ""
    deadline = now().timestamp() + settings.EMBED_DEADLINE_MS / 1000
    outcome = embedder.embed_query(result.query, generation.model, deadline)
    if outcome.vector is None:
        return f"Meaning: not looked up. {outcome.reason}"
    rank = dense_rank(generation, outcome.vector, document)
    if rank is None:
        return "Meaning: its passages have no vectors yet."
    depth = trace.config.dense_depth
    if rank <= depth:
        return f"Meaning: its best passage is at rank {rank:,} now, within the depth of {depth}."
    return f"Meaning: its best passage is at rank {rank:,}; the first {depth} go on."
