"""The addresses of the dialects, each as its clients build them from a base URL."""

from __future__ import annotations

from django.urls import path, re_path

from . import cohere, jina, openai, tei, vllm, voyage
from .endpoint import nothing_here

_OTHERS = {
    "cohere": cohere.COHERE,
    "jina": jina.JINA,
    "voyage": voyage.VOYAGE,
    "tei": tei.TEI,
    "vllm": vllm.VLLM,
    "infinity": vllm.INFINITY,
}

urlpatterns = [
    path("v1/embeddings", openai.embeddings),
    path("cohere/v1/rerank", cohere.rerank_v1),
    path("cohere/v2/rerank", cohere.rerank_v2),
    path("jina/v1/rerank", jina.rerank),
    path("voyage/v1/rerank", voyage.rerank),
    # With and without v1: Voyage's base URL ends with it.
    path("voyage/rerank", voyage.rerank),
    path("tei/rerank", tei.rerank),
    path("tei/health", tei.health),
    path("tei/info", tei.info),
    path("vllm/rerank", vllm.rerank),
    path("vllm/v1/rerank", vllm.rerank),
    path("vllm/v2/rerank", vllm.rerank),
    path("infinity/rerank", vllm.rerank_infinity),
    path("infinity/v1/rerank", vllm.rerank_infinity),
    *(
        re_path(rf"^{name}/(?P<rest>(?s:.*))$", nothing_here(dialect))
        for name, dialect in _OTHERS.items()
    ),
]
