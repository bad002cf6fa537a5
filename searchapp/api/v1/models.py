"""/v1/models: rerank and embed texts that are no documents of ours."""

from __future__ import annotations

from typing import Literal

from searchapp.models import Family, Scope

from .. import models_embed, models_rerank
from ..refusals import Refusal
from .endpoint import Answer, Call, endpoint, json_response
from .schemas import Asked, Text

LatencyMode = Literal["fast", "slow"]


class Rerank(Asked):
    model: Text
    query: str
    documents: list[str]
    top_n: int | None = None
    latency: LatencyMode | None = None


class Embed(Asked):
    model: Text
    input: str | list[str]
    input_type: Literal["query", "document"]
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    latency: LatencyMode | None = None


@endpoint("models/rerank", Rerank, Scope.SEARCH, Family.RERANK)
def rerank(call: Call, asked: Rerank) -> Answer:
    """Documents in the order of their relevance to the query."""
    ranked = models_rerank.rerank(
        call.caller,
        model=asked.model,
        query=asked.query,
        documents=asked.documents,
        top_n=asked.top_n,
        latency=asked.latency,
    )
    if isinstance(ranked, Refusal):
        return ranked
    body = {
        "results": [{"index": index, "relevance_score": score} for index, score in ranked.order],
        "actual_latency_mode": ranked.latency,
        "e2e_latency": ranked.seconds,
        "inference_latency": ranked.inference_seconds,
        "total_bytes": ranked.bytes,
        "total_tokens": ranked.tokens,
    }
    return json_response(body, headers={"x-podium-model": _header(ranked.model)})


@endpoint("models/embed", Embed, Scope.SEARCH, Family.EMBED)
def embed(call: Call, asked: Embed) -> Answer:
    """Texts as unit vectors."""
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    made = models_embed.embed(
        call.caller,
        model=asked.model,
        texts=texts,
        as_queries=asked.input_type == "query",
        dimensions=asked.dimensions,
        latency=asked.latency,
    )
    if isinstance(made, Refusal):
        return made
    as_base64 = asked.encoding_format == "base64"
    return {
        "results": [
            {"embedding": models_embed.as_base64(row) if as_base64 else row.tolist()}
            for row in made.vectors
        ],
        "usage": {"total_bytes": made.bytes, "total_tokens": made.tokens},
    }


def _header(name: str) -> str:
    """A model's name may be a path with any signs in it; a header's value may not."""
    return name.encode("ascii", "replace").decode()[:200]
