"""Hits of a search as the API tells them: where each stood in every ranking, and its text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Literal
from uuid import UUID

from searchapp.models import Passage
from searchapp.search import display
from searchapp.search.result import Hit, SearchResult

from .schemas import Rerank, Shown


class Leg(Shown):
    """One leg of the first stage. `reason` says why it was skipped."""

    status: Literal["ok", "empty", "skipped"]
    count: int
    elapsed_ms: float
    reason: str


class Place(Shown):
    """Where a passage stood in one ranking, from 1."""

    rank: int
    score: float


class Reranked(Shown):
    """`logit` is the model's own number, `relevance` the same in [0, 1]; `calibrated` is the
    probability by the collection's judgments, None where there are too few."""

    logit: float
    relevance: float
    calibrated: float | None


class DocumentName(Shown):
    uid: UUID
    path: str
    title: str


class PassageText(Shown):
    """`start` and `end` are characters of the document's text, pages count from 1."""

    ordinal: int
    text: str
    start: int
    end: int
    page_first: int | None
    page_last: int | None
    headings: list[str]


class Result(Shown):
    """One candidate. `rank` counts all of them; `movement`: places gained by the rerank. `words`
    and `meaning` are None where that leg did not bring it, `rerank` where it was not reranked.
    `left_out`: why the threshold drops it, or empty. `document` is None once it is deleted."""

    rank: int
    first_stage_rank: int
    movement: int
    fused_score: float
    words: Place | None
    meaning: Place | None
    rerank: Reranked | None
    left_out: str
    document: DocumentName | None
    passage: PassageText | None


class Stages(Shown):
    """What each stage did. `timings_ms`: lexical, embed, dense, fusion, first_stage, rerank,
    total, as far as they ran."""

    words: Leg
    meaning: Leg
    rerank: Rerank
    timings_ms: dict[str, float]


def stages(result: SearchResult) -> Stages:
    return Stages(
        words=Leg(**asdict(result.legs["lexical"])),
        meaning=Leg(**asdict(result.legs["dense"])),
        rerank=Rerank.of(result.rerank),
        timings_ms=dict(result.timings_ms),
    )


def results(hits: Iterable[Hit]) -> list[Result]:
    """In the order given, by two queries however many there are."""
    chosen = list(hits)
    passages = display.passages_by_id([hit.passage_id for hit in chosen])
    return [_result(hit, passages) for hit in chosen]


def _result(hit: Hit, passages: Mapping[int, Passage]) -> Result:
    passage = passages.get(hit.passage_id)
    return Result(
        rank=hit.rank,
        first_stage_rank=hit.first_stage_rank,
        movement=hit.movement,
        fused_score=hit.fused_score,
        words=_place(hit.lexical_rank, hit.lexical_score),
        meaning=_place(hit.dense_rank, hit.dense_score),
        rerank=None
        if hit.logit is None or hit.relevance is None
        else Reranked(logit=hit.logit, relevance=hit.relevance, calibrated=hit.calibrated),
        left_out=hit.filtered_out,
        document=None if passage is None else _name(passage),
        passage=None if passage is None else _text(passage),
    )


def _place(rank: int | None, score: float | None) -> Place | None:
    return None if rank is None or score is None else Place(rank=rank, score=score)


def _name(passage: Passage) -> DocumentName:
    document = passage.document
    return DocumentName(uid=document.uid, path=document.path, title=document.title)


def _text(passage: Passage) -> PassageText:
    return PassageText(
        ordinal=passage.ordinal,
        text=passage.text,
        start=passage.start,
        end=passage.end,
        page_first=passage.page_first,
        page_last=passage.page_last,
        headings=[str(each) for each in passage.heading_path],
    )
