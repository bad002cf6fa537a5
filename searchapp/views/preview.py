"""One saved query by the active version and by the draft, side by side."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from django.conf import settings

from searchapp.engine import remote
from searchapp.models import SearchConfig
from searchapp.models.corpus import AnyUser
from searchapp.search import configs, display, pipeline, slopegraph
from searchapp.search.result import SearchResult

from .results import document_url


@dataclass(frozen=True)
class Preview:
    """`graph` draws the two orders; `shared` of the first `places` are in both.

    `notices`: what was missing from either search, a sentence each.
    """

    graph: slopegraph.Slopegraph
    places: int
    shared: int
    moved: int
    before: SearchResult
    after: SearchResult
    notices: list[str]

    @property
    def is_empty(self) -> bool:
        return not self.before.shown and not self.after.shown

    @property
    def is_same(self) -> bool:
        return self.moved == 0 and self.shared == self.places


def preview(
    active: SearchConfig, draft: SearchConfig, query: str, user: AnyUser, rows: int
) -> Preview:
    """Both searches by the workers, their reranks at the same time. Leaves no trace."""
    embedder, reranker = remote.embedder(), remote.reranker()
    seconds = settings.RERANK_DEADLINE_MS / 1000
    # Equal versions rank alike: one search is enough to show it.
    versions = [active, draft] if configs.diff(active, draft) else [active]
    # Each has its full time: what delays the first must not make the second late.
    started = [
        pipeline.start(
            query,
            active.collection,
            user=user,
            config=config,
            embedder=embedder,
            reranker=reranker,
            deadline=time.time() + seconds,
        )
        for config in versions
    ]
    finished = [
        pipeline.finish(result, reranker.collect(result.ticket, time.time() + seconds), config)
        if result.rerank.status == "pending"
        else result
        for result, config in zip(started, versions, strict=True)
    ]
    return compared(finished[0], finished[-1], query, rows, draft.version)


def compared(
    before: SearchResult, after: SearchResult, query: str, rows: int, draft_version: int
) -> Preview:
    """The first `rows` places of two results of one query."""
    graph = slopegraph.compare(
        _entries(before, query),
        _entries(after, query),
        rows=rows,
        before_label=f"Active: version {before.config_version}",
        after_label=f"Draft: version {draft_version}",
    )
    old = [hit.passage_id for hit in before.shown[:rows]]
    new = [hit.passage_id for hit in after.shown[:rows]]
    shared = set(old) & set(new)
    places = max(len(old), len(new))
    moved = sum(1 for each in shared if old.index(each) != new.index(each))
    return Preview(graph, places, len(shared), moved, before, after, _notices(before, after))


def _entries(result: SearchResult, query: str) -> list[slopegraph.Entry]:
    """Every hit as a place: those below the picture too, or they would look lost."""
    rows = display.titles(result.shown)
    repeated = {title for title, count in Counter(row.title for row in rows).items() if count > 1}
    entries = []
    for rank, row in enumerate(rows, start=1):
        hit = row.hit
        title = row.title
        if title in repeated and not row.deleted:
            title = f"{title} · passage {row.ordinal + 1}"
        entries.append(
            slopegraph.Entry(
                id=hit.passage_id,
                title=title,
                rank=rank,
                score=hit.fused_score if hit.relevance_shown is None else hit.relevance_shown,
                detail=" › ".join(row.trail),
                href="" if row.deleted else document_url(row, query),
            )
        )
    return entries


def _notices(before: SearchResult, after: SearchResult) -> list[str]:
    """Each once, however many of the two searches it befell."""
    sentences: dict[str, None] = {}
    for result in (before, after):
        for leg in result.legs.values():
            if leg.status == "skipped" and leg.reason:
                sentences[_sentence(leg.reason)] = None
        if result.rerank.status in {"late", "unavailable"}:
            sentences[f"Compared in first-stage order: {_sentence(result.rerank.reason)}"] = None
    return list(sentences)


def _sentence(reason: str) -> str:
    text = reason.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
