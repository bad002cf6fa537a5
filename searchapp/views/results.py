"""What templates/search/_results.html shows of one search: rows or picture, status, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from searchapp.forms.search import SearchParameters
from searchapp.models import Trace
from searchapp.search import display, slopegraph, waterfall
from searchapp.search.result import Hit, SearchResult

from .judging import Choice, choices

PAGE_SIZE = 10
# Both legs together find more candidates; what comes after these nobody pages to.
MAX_SHOWN = 100


@dataclass(frozen=True)
class Link:
    label: str
    url: str
    current: bool = False
    rows: int = 0


@dataclass(frozen=True)
class Addresses:
    """Where the links of the results lead: `/search?…` or the stored search's own page."""

    base: str
    parameters: SearchParameters
    stored: bool = False

    def to(self, **changes: Any) -> str:
        changed = self.parameters.with_changes(**changes)
        text = changed.query_string(display_only=self.stored)
        if self.stored and changed.view == "list":
            text = f"view=list&{text}".rstrip("&")
        return f"{self.base}?{text}" if text else self.base


def results_context(
    trace: Trace,
    result: SearchResult,
    parameters: SearchParameters,
    *,
    judged: Mapping[str, int] | None = None,
    stored: bool = False,
) -> dict[str, Any]:
    """The template's context. `stored`: on the search's permalink, so links stay there. `judged`:
    path -> the grade this user gave; None for one who may not judge here."""
    collection = trace.collection
    parameters = parameters.with_changes(trace=trace.uid, wait=False)
    base = reverse("trace", args=[trace.uid]) if stored else reverse("search")
    addresses = Addresses(base, parameters, stored)
    hits = ordered(result, parameters)
    pages = max(1, -(-len(hits) // PAGE_SIZE))
    page = min(parameters.page, pages)
    compare = parameters.view == "compare"
    here = hits[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    reranked = result.rerank.status == "ok"
    return {
        "trace": trace,
        "result": result,
        "collection": collection,
        "parameters": parameters,
        "stored": stored,
        "pending": result.rerank.status == "pending",
        "reranked": reranked,
        "first_order": parameters.order == "first" or not reranked,
        "rows": []
        if compare
        else with_links(
            display.rows(here, result.query, collection.language), result.query, judged
        ),
        "return_url": addresses.to(page=page),
        "shown_count": len(hits),
        "filtered_count": len(result.hits) - len(result.shown),
        "graph": graph_of(result, parameters.rows) if compare and hits else None,
        "row_links": row_links(addresses, len(hits)),
        "view_links": view_links(addresses),
        "order_links": order_links(addresses) if reranked else [],
        "page_links": page_links(addresses, page, pages),
        "page": page,
        "pages": pages,
        "first_rank": (page - 1) * PAGE_SIZE + 1,
        "pending_count": result.rerank.pairs,
        "dense_ms": result.timings_ms.get("embed", 0.0) + result.timings_ms.get("dense", 0.0),
        "total_ms": result.timings_ms.get("total"),
        "wait_query": parameters.with_changes(wait=True).query_string(),
        "bars": waterfall.bars(result),
        "notices": notices(result),
        "announcement": announcement(result),
        "cancel_url": reverse("rerank_cancel", args=[trace.uid]),
        "rerank_url": f"{reverse('rerank', args=[trace.uid])}?{parameters.query_string()}",
    }


def ordered(result: SearchResult, parameters: SearchParameters) -> Sequence[Hit]:
    if parameters.order == "first":
        return [hit for hit in result.first_stage_order() if not hit.filtered_out][:MAX_SHOWN]
    return result.shown[:MAX_SHOWN]


def graph_of(result: SearchResult, rows: int) -> slopegraph.Slopegraph:
    """First-stage order against the order shown. Scores: fused before, relevance after."""
    near = [hit for hit in result.shown if min(hit.rank, hit.first_stage_rank) <= rows]
    reranked = result.rerank.status == "ok"
    before, after = [], []
    for row in display.titles(near):
        href = document_url(row, result.query) if not row.deleted else ""
        detail = " › ".join(row.trail)
        hit = row.hit
        entry = slopegraph.Entry(
            hit.passage_id,
            row.title,
            hit.first_stage_rank,
            hit.fused_score,
            detail,
            href,
        )
        before.append(entry)
        score = hit.relevance_shown if reranked else hit.fused_score
        after.append(replace(entry, rank=hit.rank, score=score))
    return slopegraph.compare(
        before,
        after,
        rows=rows,
        before_label="First stage",
        after_label="Reranked" if reranked else "Shown",
    )


def document_url(row: display.Row, query: str) -> str:
    address = reverse("document", args=[row.document_uid])
    return f"{address}?{urlencode({'passage': row.ordinal, 'q': query})}#passage"


def notices(result: SearchResult) -> list[str]:
    """What is missing from this search or not to be expected of it, one sentence each."""
    sentences = []
    names = {
        "dense": "Found by words only",
        "lexical": "Found by meaning only",
    }
    for leg, sentence in names.items():
        if leg in result.legs and result.legs[leg].status == "skipped":
            sentences.append(f"{sentence}: {_sentence(result.legs[leg].reason)}")
    if result.rerank.status in {"late", "unavailable"} and result.hits:
        sentences.append(f"Shown in first-stage order: {_sentence(result.rerank.reason)}")
    if result.rerank.status == "ok" and result.rerank.scale == "untrained" and result.instruction:
        sentences.append(
            "The untrained baseline weighs the words of an instruction; it does not follow it."
        )
    return sentences


def announcement(result: SearchResult) -> str:
    """What a screen reader hears when the rerank has arrived."""
    shown = result.shown
    if result.rerank.status == "ok" and shown:
        first = display.titles(shown[:1])[0].title
        count = result.rerank.pairs or len(shown)
        return f"Reranked: {result.moved} of {count} passages moved; first is now {first}."
    return " ".join(notices(result))


def view_links(addresses: Addresses) -> list[Link]:
    now = addresses.parameters.view
    return [
        Link("list", addresses.to(view="list"), now == "list"),
        Link("before/after", addresses.to(view="compare", page=1), now == "compare"),
    ]


def order_links(addresses: Addresses) -> list[Link]:
    now = addresses.parameters.order
    return [
        Link("reranked order", addresses.to(order="reranked", page=1), now == "reranked"),
        Link("first-stage order", addresses.to(order="first", page=1), now == "first"),
    ]


def row_links(addresses: Addresses, count: int) -> list[Link]:
    """Only as many places as there are, rounded up to the next choice."""
    links = []
    for rows in slopegraph.ROW_CHOICES:
        links.append(
            Link(str(rows), addresses.to(rows=rows), rows == addresses.parameters.rows, rows)
        )
        if rows >= count:
            break
    return links if len(links) > 1 else []


def page_links(addresses: Addresses, page: int, pages: int) -> list[Link]:
    if pages < 2:
        return []
    return [
        Link(str(number), addresses.to(page=number), number == page)
        for number in range(1, pages + 1)
    ]


def with_links(
    rows: Sequence[display.Row], query: str, judged: Mapping[str, int] | None
) -> list[tuple[display.Row, str, Sequence[Choice]]]:
    """Each row with its document's address and, for judges, its grades to choose from."""
    return [
        (row, "", ())
        if row.deleted
        else (
            row,
            document_url(row, query),
            () if judged is None else choices(judged.get(row.path)),
        )
        for row in rows
    ]


def _sentence(reason: str) -> str:
    """The reason after a colon: no capital unless a name needs one, one full stop."""
    text = reason.strip().rstrip(".") or "no reason was given"
    plain = len(text) > 1 and text[0].isupper() and text[1].islower()
    return (text[0].lower() + text[1:] if plain else text) + "."
