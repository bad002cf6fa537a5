"""Cohere's rerank, v1 and v2. Its clients append v1/rerank or v2/rerank to their base URL."""

from __future__ import annotations

import math
import uuid
from typing import Any

from pydantic import Field

from ..models_rerank import Reranked
from .endpoint import Asked, Dialect, Wanted, rerank_view

# Cohere bills a query with up to this many documents as one search unit.
DOCUMENTS_PER_UNIT = 100

COHERE = Dialect(
    body=lambda refusal: {"message": refusal.sentence},
    models=("rerank-",),
)


class RerankV2(Asked):
    model: str
    query: str
    documents: list[str]
    top_n: int | None = Field(None, ge=1)
    max_tokens_per_doc: int | None = None
    # 0 is served first; all others may wait.
    priority: int = 0
    relevant_spans: dict[str, Any] | None = None

    def wanted(self) -> Wanted:
        return Wanted(
            model=self.model,
            query=self.query,
            documents=self.documents,
            top_n=self.top_n,
            instruction=self.instruction or "",
            latency="slow" if self.priority > 0 else None,
        )


class RerankV1(Asked):
    """`documents`: texts, or objects of which `rank_fields` (default: text) are ranked."""

    model: str | None = None
    query: str
    documents: list[str | dict[str, Any]]
    top_n: int | None = Field(None, ge=1)
    rank_fields: list[str] | None = Field(None, min_length=1)
    return_documents: bool = False
    max_chunks_per_doc: int | None = None

    def wanted(self) -> Wanted:
        return Wanted(
            model=self.model or "default",
            query=self.query,
            documents=[self.text_of(each) for each in self.documents],
            top_n=self.top_n,
            instruction=self.instruction or "",
        )

    @property
    def fields(self) -> list[str]:
        return self.rank_fields or ["text"]

    def without_fields(self) -> int:
        """How many documents have nothing that is ranked."""
        given = [each for each in self.documents if isinstance(each, dict)]
        return sum(all(each.get(name) is None for name in self.fields) for each in given)

    def text_of(self, document: str | dict[str, Any]) -> str:
        """One field as it is, several as lines of `name: value` in the order asked for."""
        if isinstance(document, str):
            return document
        present = [name for name in self.fields if document.get(name) is not None]
        if len(self.fields) == 1:
            return str(document[present[0]]) if present else ""
        return "\n".join(f"{name}: {document[name]}" for name in present)


def answer_v2(asked: RerankV2, ranked: Reranked) -> dict[str, Any]:
    results = [{"index": index, "relevance_score": score} for index, score in ranked.order]
    warnings = _cut(ranked)
    if asked.max_tokens_per_doc is not None:
        warnings.append("max_tokens_per_doc is not applied: the model's own length is.")
    if asked.relevant_spans and asked.relevant_spans.get("mode") == "enabled":
        warnings.append("relevant_spans is not served here.")
    return _body("2", len(asked.documents), results, ranked, warnings)


def answer_v1(asked: RerankV1, ranked: Reranked) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for index, score in ranked.order:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if asked.return_documents:
            given = asked.documents[index]
            result["document"] = {"text": given} if isinstance(given, str) else given
        results.append(result)
    warnings = _cut(ranked)
    if bare := asked.without_fields():
        fields = " or ".join(asked.fields)
        warnings.append(
            f"Documents without {fields}, ranked as empty ones: {bare:,}. Name in rank_fields what "
            "is to be ranked."
        )
    if asked.max_chunks_per_doc is not None:
        warnings.append("max_chunks_per_doc is not applied: documents are ranked whole.")
    return _body("1", len(asked.documents), results, ranked, warnings)


def _body(
    version: str, given: int, results: list[dict[str, Any]], ranked: Reranked, warnings: list[str]
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": math.ceil(given / DOCUMENTS_PER_UNIT)},
        "tokens": {"input_tokens": ranked.tokens},
    }
    if warnings:
        meta["warnings"] = warnings
    return {"id": str(uuid.uuid4()), "results": results, "meta": meta}


def _cut(ranked: Reranked) -> list[str]:
    if not ranked.truncated:
        return []
    many = "1 document was" if ranked.truncated == 1 else f"{ranked.truncated:,} documents were"
    return [f"{many} longer than the model reads, and cut."]


rerank_v1 = rerank_view(COHERE, RerankV1, answer_v1)
rerank_v2 = rerank_view(COHERE, RerankV2, answer_v2)
