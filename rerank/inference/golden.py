"""Published scores that the real weights must reproduce."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rerank.errors import WrongModel
from rerank.types import Reranker, RerankRequest

# Between bfloat16, float16 and float8 kernels published scores differ by about this much.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Golden:
    """A query, its documents from the best to the worst, and their published relevances."""

    query: str
    documents: tuple[str, ...]
    relevances: tuple[float, ...]


_ZERANK_2 = (
    # From the model card, there in bfloat16; exact values of the printed logits 5.4062 and -4.5.
    Golden("What is 2+2?", ("4", "The answer is definitely 1 million"), (0.7467, 0.2891)),
    # From the launch article.
    Golden(
        "What should I cook for dinner tonight?",
        ("I'm allergic to nuts so I'd rather not eat that", "I'm Alex"),
        (0.2994, 0.1645),
    ),
)
_ZERANK_1 = (
    # From the vendor's cookbook, a hosted endpoint.
    Golden(
        "what is the first step in making apple jam",
        ("boil apples", "freeze apples", "jam to some tunes"),
        (0.7716, 0.7676, 0.7242),
    ),
)
_PUBLISHED = {
    "zerank-2": _ZERANK_2,
    "zerank-2-reranker": _ZERANK_2,
    "zerank-2-reranker-seq": _ZERANK_2,
    "zerank-1": _ZERANK_1,
    "zerank-1-reranker": _ZERANK_1,
}


def golden_pairs(name: str) -> tuple[Golden, ...]:
    """Of the model `name` (hub name with or without @revision, or a directory called like the
    model); empty when none were published."""
    last = name.rstrip("/").rsplit("/", 1)[-1].partition("@")[0]
    return _PUBLISHED.get(last.lower(), ())


def check_golden(reranker: Reranker, name: str) -> int:
    """How many published scores were reproduced; 0 when none are known for `name`.

    Raises WrongModel when one is off by more than TOLERANCE or two stand in the wrong order.
    """
    checked = 0
    for golden in golden_pairs(name):
        scores = reranker.score(RerankRequest(golden.query, golden.documents)).relevance
        for document, expected, found in zip(
            golden.documents, golden.relevances, scores, strict=True
        ):
            if not abs(float(found) - expected) <= TOLERANCE:
                raise WrongModel(
                    f"The model {name!r} does not give its published scores: {golden.query!r} with "
                    f"{document!r} scored {float(found):.4f} instead of {expected:.4f}. The files "
                    "or the backend are not the published ones; download the model again."
                )
            checked += 1
        if any(better <= worse for better, worse in pairwise(scores)):
            raise WrongModel(
                f"The model {name!r} puts the published documents of {golden.query!r} in the wrong "
                "order. The files or the backend are not the published ones."
            )
    return checked
