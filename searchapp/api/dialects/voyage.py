"""Voyage's rerank. Its client puts the documents back by their index."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ..models_rerank import Reranked
from ..refusals import Refusal
from .endpoint import Asked, Dialect, Wanted, rerank_view

VOYAGE = Dialect(
    body=lambda refusal: {"detail": refusal.sentence},
    models=("rerank-",),
)


class Rerank(Asked):
    model: str
    query: str
    documents: list[str]
    top_k: int | None = Field(None, ge=1)
    return_documents: bool = False
    truncation: bool = True

    def wanted(self) -> Wanted:
        return Wanted(
            model=self.model,
            query=self.query,
            documents=self.documents,
            top_n=self.top_k,
            instruction=self.instruction or "",
        )


def answer(asked: Rerank, ranked: Reranked) -> dict[str, Any] | Refusal:
    if ranked.truncated and not asked.truncation:
        return Refusal(
            400,
            "too-long",
            f"Documents longer than the model reads: {ranked.truncated:,}. Shorten them, or set "
            "truncation to true.",
        )
    data: list[dict[str, Any]] = []
    for index, score in ranked.order:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if asked.return_documents:
            result["document"] = asked.documents[index]
        data.append(result)
    return {
        "object": "list",
        "data": data,
        "model": ranked.model,
        "usage": {"total_tokens": ranked.tokens},
    }


rerank = rerank_view(VOYAGE, Rerank, answer)
