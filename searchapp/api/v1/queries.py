"""/v1/queries: the best documents, pages and snippets for a query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from rerank.ranking import analysis
from searchapp.models import Document, DocumentStatus, DocumentText, Family, Scope
from searchapp.search.filters import Filters, read_filters

from .. import searching
from ..collection_names import named
from ..links import Links
from ..refusals import Refusal
from ..searching import Answered, Found
from . import snippets
from .documents import by_path
from .endpoint import Answer, Call, endpoint, json_response
from .pages import image_url, page_text, pages_in
from .records import Record
from .schemas import Asked, Text

MAX_QUERY = 4096
# The largest k of each.
DOCUMENTS, PAGES, SNIPPETS = 2048, 1024, 128


class TopDocuments(Asked):
    collection_name: Text
    query: str | None
    k: int
    filter: dict[str, Any] | None = None
    include_metadata: bool = False
    reranker: str | None = None
    latency_mode: Literal["low", "high"] = "low"


class TopPages(Asked):
    collection_name: Text
    query: str
    k: int
    filter: dict[str, Any] | None = None
    include_content: bool = False
    include_metadata: bool = False
    latency_mode: Literal["low", "high"] = "low"


class TopSnippets(Asked):
    collection_name: Text
    query: str
    k: int
    filter: dict[str, Any] | None = None
    include_document_metadata: bool = False
    precise_responses: bool = False
    reranker: str | None = None


@endpoint("queries/top-documents", TopDocuments, Scope.SEARCH, Family.SEARCH)
def top_documents(call: Call, asked: TopDocuments) -> Answer:
    """Documents by their best passage; without a query those that pass the filter."""
    filters = read_filters({"where": asked.filter})
    refusal = _bad_k(asked.k, DOCUMENTS) or _long((asked.query or "").encode())
    if refusal is not None:
        return refusal
    if asked.query is None:
        return _filtered(call, asked, filters)

    def shape(found: Found) -> Record:
        best = _best_of_documents(found)[: asked.k]
        rows = _documents(document for document, _ in best)
        results = [
            document_result(rows[pk], score, asked.include_metadata, call.links)
            for pk, score in best
            if pk in rows
        ]
        return {"results": results}

    return _answer(
        searching.find(
            call.caller,
            asked.collection_name,
            asked.query,
            filters,
            wanted=asked.k,
            counted=searching.documents,
            shape=shape,
            reranker=asked.reranker,
            thorough=asked.latency_mode == "high",
        )
    )


@endpoint("queries/top-pages", TopPages, Scope.SEARCH, Family.SEARCH)
def top_pages(call: Call, asked: TopPages) -> Answer:
    """Pages by their best passage. Documents without pages have none to give."""
    filters = read_filters({"where": asked.filter})
    refusal = _bad_k(asked.k, PAGES) or _long(asked.query.encode())
    if refusal is not None:
        return refusal

    def shape(found: Found) -> Record:
        chosen = list(_best_of_pages(found, asked.query).items())[: asked.k]
        rows = _documents(pk for (pk, _), _ in chosen)
        texts = _texts(rows) if asked.include_content else {}
        results: list[Record] = [
            {
                "path": rows[pk].path,
                "page_index": page,
                "score": score,
                "content": page_text(texts[pk], page) if pk in texts else None,
                "image_url": image_url(rows[pk], page, call.links),
            }
            for (pk, page), score in chosen
            if pk in rows
        ]
        return {
            "results": results,
            "document_results": _document_results(found, rows, asked.include_metadata, call.links),
        }

    return _answer(
        searching.find(
            call.caller,
            asked.collection_name,
            asked.query,
            filters,
            wanted=asked.k,
            counted=searching.pages,
            shape=shape,
            thorough=asked.latency_mode == "high",
        )
    )


@endpoint("queries/top-snippets", TopSnippets, Scope.SEARCH, Family.SEARCH)
def top_snippets(call: Call, asked: TopSnippets) -> Answer:
    """Stretches of text of about 2000 characters, or 200 where precise ones are wanted."""
    filters = read_filters({"where": asked.filter})
    refusal = _bad_k(asked.k, SNIPPETS) or _long(asked.query)
    if refusal is not None:
        return refusal

    def shape(found: Found) -> Record:
        chosen = snippets.choose(
            found.passages,
            asked.query,
            found.collection.language,
            asked.k,
            precise=asked.precise_responses,
        )
        rows = _documents(each.document_id for each in chosen)
        results = [
            {
                "path": rows[each.document_id].path,
                "start_index": each.start,
                "end_index": each.end,
                "page_span": list(each.page_span),
                "content": each.text,
                "score": each.score,
            }
            for each in chosen
            if each.document_id in rows
        ]
        return {
            "results": results,
            "document_results": _document_results(
                found, rows, asked.include_document_metadata, call.links
            ),
        }

    return _answer(
        searching.find(
            call.caller,
            asked.collection_name,
            asked.query,
            filters,
            wanted=asked.k,
            counted=searching.passages,
            shape=shape,
            reranker=asked.reranker,
        )
    )


def document_result(document: Document, score: float, with_metadata: bool, links: Links) -> Record:
    return {
        "path": document.path,
        "score": score,
        "metadata": document.metadata if with_metadata else None,
        "file_url": links.document(document.uid),
    }


def _filtered(call: Call, asked: TopDocuments, filters: Filters) -> Answer:
    """In the order of paths, each with the score 0: nothing was asked that could be relevant."""
    collection = named(call.caller, asked.collection_name, Scope.SEARCH)
    if isinstance(collection, Refusal):
        return collection
    condition, params = filters.document_sql("searchapp_document", collection)
    rows = by_path(collection).exclude(status=DocumentStatus.RECEIVED, passage_count=0)
    matching = rows.extra(where=[condition], params=params)[: asked.k]
    results = [document_result(row, 0.0, asked.include_metadata, call.links) for row in matching]
    return {"results": results}


def _document_results(
    found: Found, rows: dict[int, Document], with_metadata: bool, links: Links
) -> list[Record]:
    return [
        document_result(rows[pk], score, with_metadata, links)
        for pk, score in _best_of_documents(found)
        if pk in rows
    ]


def _best_of_documents(found: Found) -> list[tuple[int, float]]:
    best: dict[int, float] = {}
    for passage, score in found.passages:
        best.setdefault(passage.document_id, score)
    return list(best.items())


def _best_of_pages(found: Found, query: str) -> dict[tuple[int, int], float]:
    """(document, page from 0) -> score, best first. Of a passage over several pages, the one comes
    first that holds most words of the query."""
    several = {each.document_id for each, _ in found.passages if each.page_first != each.page_last}
    starts: dict[int, list[int]] = dict(
        DocumentText.objects.filter(pk__in=several).values_list("pk", "page_starts")
    )
    language = found.collection.language
    wanted = frozenset(analysis.query_terms(query, language))
    best: dict[tuple[int, int], float] = {}
    for passage, score in found.passages:
        pages = searching.pages(passage)
        if len(pages) > 1 and passage.document_id in starts:
            own = pages_in(passage, starts[passage.document_id], pages)
            held = {
                page: len(wanted.intersection(analysis.terms(text, language)))
                for page, text in own.items()
            }
            pages = sorted(pages, key=lambda page: -held[page])
        for page in pages:
            best.setdefault((passage.document_id, page), score)
    return best


def _documents(pks: Iterable[int]) -> dict[int, Document]:
    return Document.objects.select_related("upload").in_bulk(list(set(pks)))


def _texts(pks: Iterable[int]) -> dict[int, DocumentText]:
    return DocumentText.objects.in_bulk(list(pks))


def _bad_k(k: int, most: int) -> Refusal | None:
    if 1 <= k <= most:
        return None
    return Refusal(400, "bad-k", f"k must be from 1 to {most:,}.")


def _long(query: str | bytes) -> Refusal | None:
    """Snippets count a query's characters, the others its bytes."""
    if len(query) <= MAX_QUERY:
        return None
    unit = "characters" if isinstance(query, str) else "bytes of UTF-8"
    sentence = f"The query has {len(query):,} {unit}; it may have up to {MAX_QUERY:,}."
    return Refusal(400, "long-query", sentence)


def _answer(found: Answered | Refusal) -> Answer:
    """The contract has no place for what became of the rerank; headers do no harm."""
    if isinstance(found, Refusal):
        return found
    headers: dict[str, str] = {"x-podium-rerank": found.rerank.status}
    if found.rerank.status == "ok":
        headers["x-podium-model"] = found.rerank.model.encode("ascii", "replace").decode()[:200]
    elif found.rerank.code:
        headers["x-podium-rerank-reason"] = found.rerank.code
    return json_response(found.body, headers=headers)
