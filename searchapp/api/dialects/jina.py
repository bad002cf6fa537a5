"""Jina's rerank. Images, which its multimodal models rank, are not texts and are refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from ..models_rerank import Reranked
from .endpoint import Asked, Dialect, Wanted, rerank_view

JINA = Dialect(
    body=lambda refusal: {"detail": refusal.sentence},
    invalid_status=422,
    invalid=lambda details: {"detail": details},
    models=("jina-reranker-", "jina-colbert-"),
)


class TextDocument(BaseModel):
    text: str


class Rerank(Asked):
    model: str
    query: str | TextDocument
    documents: list[str | TextDocument]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = True

    def wanted(self) -> Wanted:
        return Wanted(
            model=self.model,
            query=_text(self.query),
            documents=[_text(each) for each in self.documents],
            top_n=self.top_n,
            instruction=self.instruction or "",
        )


def answer(asked: Rerank, ranked: Reranked) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for index, score in ranked.order:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if asked.return_documents:
            result["document"] = {"text": _text(asked.documents[index])}
        results.append(result)
    return {
        "model": ranked.model,
        "object": "list",
        "usage": {"total_tokens": ranked.tokens, "prompt_tokens": ranked.tokens},
        "results": results,
    }


def _text(given: str | TextDocument) -> str:
    return given if isinstance(given, str) else given.text


rerank = rerank_view(JINA, Rerank, answer)
