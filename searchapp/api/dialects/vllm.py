"""The rerank of vLLM and of Infinity, two servers for one's own models."""

from __future__ import annotations

import time
import uuid
from typing import Any

from pydantic import Field

from ..models_rerank import Reranked
from ..refusals import Refusal
from .endpoint import Asked, Dialect, Wanted, rerank_view

_NAMES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
}


def _error(refusal: Refusal) -> dict[str, Any]:
    kind = _NAMES.get(
        refusal.status, "InternalServerError" if refusal.status >= 500 else "BadRequestError"
    )
    return {
        "error": {
            "message": refusal.sentence,
            "type": kind,
            "param": None,
            "code": refusal.status,
        }
    }


VLLM = Dialect(body=_error)
INFINITY = Dialect(body=_error, invalid_status=422, invalid=lambda details: {"detail": details})


class RerankVllm(Asked):
    """`top_n` 0: all. `use_activation` false, or `activation` as it was called: raw scores."""

    model: str | None = None
    query: str
    documents: str | list[str]
    top_n: int = Field(0, ge=0)
    use_activation: bool | None = None
    activation: bool | None = None
    # 0 is served first; greater numbers may wait.
    priority: int = 0

    @property
    def texts(self) -> list[str]:
        return [self.documents] if isinstance(self.documents, str) else self.documents

    @property
    def raw_scores(self) -> bool:
        return self.use_activation is False or (
            self.use_activation is None and self.activation is False
        )

    def wanted(self) -> Wanted:
        return Wanted(
            model=self.model or "default",
            query=self.query,
            documents=self.texts,
            top_n=self.top_n or None,
            instruction=self.instruction or "",
            latency="slow" if self.priority > 0 else None,
        )


class RerankInfinity(Asked):
    # Infinity's own "not said".
    model: str = "default/not-specified"
    query: str
    documents: list[str]
    top_n: int | None = Field(None, gt=0)
    return_documents: bool = False
    raw_scores: bool = False

    def wanted(self) -> Wanted:
        return Wanted(
            model="default" if self.model == "default/not-specified" else self.model,
            query=self.query,
            documents=self.documents,
            top_n=self.top_n,
            instruction=self.instruction or "",
        )


def answer_vllm(asked: RerankVllm, ranked: Reranked) -> dict[str, Any]:
    texts = asked.texts
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": ranked.model,
        "usage": {"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens},
        "results": [
            {
                "index": index,
                "document": {"text": texts[index]},
                "relevance_score": raw if asked.raw_scores else score,
            }
            for (index, score), raw in zip(ranked.order, ranked.raw, strict=True)
        ],
    }


def answer_infinity(asked: RerankInfinity, ranked: Reranked) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for (index, score), raw in zip(ranked.order, ranked.raw, strict=True):
        result: dict[str, Any] = {
            "relevance_score": raw if asked.raw_scores else score,
            "index": index,
        }
        if asked.return_documents:
            result["document"] = asked.documents[index]
        results.append(result)
    return {
        "object": "rerank",
        "results": results,
        "model": ranked.model,
        "usage": {"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens},
        "id": f"infinity-{uuid.uuid4()}",
        "created": int(time.time()),
    }


rerank = rerank_view(VLLM, RerankVllm, answer_vllm)
rerank_infinity = rerank_view(INFINITY, RerankInfinity, answer_infinity)
