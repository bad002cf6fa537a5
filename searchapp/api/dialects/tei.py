"""Text Embeddings Inference: /rerank, /health and /info. One server, one model: none is named."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest, HttpResponse

from searchapp.engine import presence
from searchapp.engine.broker import BrokerDown
from searchapp.models import Family, Scope

from ..auth import Caller, keyed, refused
from ..models_rerank import Reranked
from ..refusals import Refusal
from .endpoint import Asked, Dialect, Wanted, json_response, only, rerank_view

# error_type by status, as its schema names them.
_TYPES = {400: "empty", 413: "validation", 422: "tokenizer", 424: "backend", 429: "overloaded"}

TEI = Dialect(
    body=lambda refusal: {
        "error": refusal.sentence,
        "error_type": _error_type(refusal),
    },
    invalid_status=422,
    statuses={
        "bad-input": 422,
        "too-large": 413,
        "above-limit": 413,
        "too-long": 413,
        "late": 424,
        "failed": 424,
        "no-model": 424,
        "worker-stopped": 424,
        "no-broker": 424,
        "no-worker": 424,
        "overloaded": 429,
    },
)


class Rerank(Asked):
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"

    def wanted(self) -> Wanted:
        return Wanted(query=self.query, documents=self.texts, instruction=self.instruction or "")


def answer(asked: Rerank, ranked: Reranked) -> list[dict[str, Any]] | Refusal:
    if ranked.truncated and not asked.truncate:
        return Refusal(
            413,
            "too-long",
            f"Texts longer than the model reads: {ranked.truncated:,}. Shorten them, or set "
            "truncate to true.",
        )
    results: list[dict[str, Any]] = []
    for (index, score), raw in zip(ranked.order, ranked.raw, strict=True):
        result: dict[str, Any] = {"index": index, "score": raw if asked.raw_scores else score}
        if asked.return_text:
            result["text"] = asked.texts[index]
        results.append(result)
    return results


def _health(request: HttpRequest) -> HttpResponse:
    """Open, as there: whoever balances load has no key."""
    if presence.is_served("gpu"):
        return HttpResponse()
    sentence = "No rerank worker is ready."
    return refused(Refusal(503, "unhealthy", sentence, retry_after=1.0), TEI.render)


@keyed(Scope.SEARCH, Family.RERANK, TEI.render)
def _info(request: HttpRequest, caller: Caller) -> HttpResponse:
    try:
        able = [worker for worker in presence.alive("gpu") if not worker.reason]
    except BrokerDown:
        able = []
    return json_response(
        {
            "model_id": able[0].model if able else "",
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "version": "podium",
        }
    )


def _error_type(refusal: Refusal) -> str:
    if refusal.code in {"empty", "unhealthy"}:
        return refusal.code
    if refusal.code == "invalid" or refusal.status not in _TYPES:
        return "backend" if refusal.status >= 500 else "validation"
    return _TYPES[refusal.status]


rerank = rerank_view(TEI, Rerank, answer)
health = only("GET", TEI, _health)
info = only("GET", TEI, _info)
