"""The records of one search. The page, the API, the command, the previews and the tests all read
these; `as_json` is what a trace stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from searchapp.engine.sockets import RerankOutcome

LegStatus = Literal["ok", "empty", "skipped"]


@dataclass(frozen=True)
class Leg:
    """How one leg of the first stage went. `reason` is a sentence when status is skipped."""

    status: LegStatus
    count: int = 0
    elapsed_ms: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Hit:
    """One candidate. Ranks count from 1; None means absent from that ranking.

    `rank` is the position shown; before the rerank, or without one, it equals `first_stage_rank`.
    Candidates beyond the rerank depth keep first-stage order below the reranked ones.
    """

    passage_id: int
    document_id: int
    rank: int
    first_stage_rank: int
    fused_score: float
    lexical_rank: int | None = None
    lexical_score: float | None = None
    dense_rank: int | None = None
    dense_score: float | None = None
    logit: float | None = None
    relevance: float | None = None
    # Probability of relevance by the collection's own judgments; None where there are too few.
    calibrated: float | None = None
    # Why it is not shown ("below the threshold 0.4"), else empty.
    filtered_out: str = ""

    @property
    def relevance_shown(self) -> float | None:
        """What pages show and thresholds act on: calibrated where there is such, else relevance."""
        return self.relevance if self.calibrated is None else self.calibrated

    @property
    def movement(self) -> int:
        """Places gained by the rerank: positive is up."""
        return self.first_stage_rank - self.rank

    @property
    def found_by(self) -> list[str]:
        legs = [("words", self.lexical_rank), ("meaning", self.dense_rank)]
        return [name for name, rank in legs if rank is not None]


@dataclass(frozen=True)
class SearchResult:
    """Hits in the order shown, and how they came about.

    `timings_ms` keys: lexical, embed, dense, fusion, first_stage, rerank, total. `ticket` is set
    while the rerank is on its way (rerank.status "pending"). `confidence`: how probable it is that
    the first hit is relevant, None where that was not fitted (rerank/ranking/confidence.py).
    """

    query: str
    collection_id: int
    config_id: int
    config_version: int
    instruction: str  # as rendered for the reranker; "" when none
    hits: tuple[Hit, ...]
    legs: Mapping[str, Leg]  # keys "lexical", "dense"
    rerank: RerankOutcome
    timings_ms: Mapping[str, float]
    filters: Mapping[str, Any] = field(default_factory=dict)
    ticket: str = ""
    confidence: float | None = None

    @property
    def is_calibrated(self) -> bool:
        return any(hit.calibrated is not None for hit in self.hits)

    def first_stage_order(self) -> tuple[Hit, ...]:
        return tuple(sorted(self.hits, key=lambda hit: hit.first_stage_rank))

    @property
    def shown(self) -> tuple[Hit, ...]:
        return tuple(hit for hit in self.hits if not hit.filtered_out)

    @property
    def moved(self) -> int:
        """How many of the shown hits changed place."""
        return sum(1 for hit in self.shown if hit.movement)

    def as_json(self) -> dict[str, Any]:
        return {
            "query": self.query,
            "collection_id": self.collection_id,
            "config_id": self.config_id,
            "config_version": self.config_version,
            "instruction": self.instruction,
            # A hit holds plain values only, and asdict copies them 20 times slower.
            "hits": [dict(vars(hit)) for hit in self.hits],
            "legs": {name: asdict(leg) for name, leg in self.legs.items()},
            "rerank": self.rerank.as_json(),
            "timings_ms": dict(self.timings_ms),
            "filters": dict(self.filters),
            "ticket": self.ticket,
            "confidence": self.confidence,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchResult:
        """The inverse of `as_json` (the rerank's score arrays stay empty: hits carry them)."""
        return cls(
            **{
                **data,
                "hits": tuple(Hit(**hit) for hit in data["hits"]),
                "legs": {name: Leg(**leg) for name, leg in data["legs"].items()},
                "rerank": RerankOutcome(**data["rerank"]),
            }
        )
