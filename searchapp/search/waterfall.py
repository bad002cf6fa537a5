"""The stages of one search as bars over time."""

from __future__ import annotations

from dataclasses import dataclass

from .result import SearchResult

NAMES = {
    "lexical": "lexical leg",
    "embed": "query vector",
    "dense": "dense leg",
    "fusion": "fusion",
    "queue": "rerank: waiting",
    "tokenize": "rerank: tokens",
    "inference": "rerank: scoring",
    "transfer": "rerank: on the way",
}
# A stage of the rerank that takes less is noise of the clocks.
SHOWN_MS = 0.05


@dataclass(frozen=True)
class Bar:
    """One stage; `start` and `width` in percent of the whole search."""

    stage: str
    name: str
    elapsed_ms: float
    start: float
    width: float


def bars(result: SearchResult) -> list[Bar]:
    """The stages in the order they ran: the query's vector is made while the lexical leg runs, the
    dense leg needs both done, the rerank begins where the first stage ends."""
    times = result.timings_ms
    spans = [(stage, 0.0, times[stage]) for stage in ("lexical", "embed") if stage in times]
    at = max((elapsed for _, _, elapsed in spans), default=0.0)
    for stage in ("dense", "fusion"):
        if stage in times:
            spans.append((stage, at, times[stage]))
            at += times[stage]
    at = max(at, times.get("first_stage", 0.0))
    rerank = result.rerank
    if rerank.status == "ok":
        on_the_way = max(0.0, times.get("rerank", 0.0) - rerank.elapsed_ms)
        for stage, elapsed in (
            ("queue", rerank.queue_ms),
            ("tokenize", rerank.tokenize_ms),
            ("inference", rerank.inference_ms),
            ("transfer", on_the_way),
        ):
            if elapsed >= SHOWN_MS:
                spans.append((stage, at, elapsed))
                at += elapsed
    whole = max(at, 0.001)
    return [
        Bar(stage, NAMES[stage], elapsed, 100 * start / whole, max(100 * elapsed / whole, 0.4))
        for stage, start, elapsed in spans
    ]
