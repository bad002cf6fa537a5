"""Speed and memory at 100,000 passages: `make bench-search` or `python -m benches.search`.

Everything is measured in one run on a whole Podium of its own, so read the times as ratios. Words
are synthetic (Zipf) and so are the vectors; queries are embedded by the real model.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches.stack import ROOT, Stack

OUTPUT = ROOT / "docs" / "benchmarks"
DEPTH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--ingested", type=int, default=400, help="passages of the ingest part")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    with Stack() as stack:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "searchapp.settings")
        import django

        django.setup()
        figures = measure(stack, options)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "search.json").write_text(json.dumps(figures, indent=2) + "\n")
    table = as_table(figures)
    (options.output / "search.md").write_text(table)
    sys.stdout.write(table)


def measure(stack: Stack, options: argparse.Namespace) -> dict[str, Any]:
    from benches import corpus

    random = np.random.default_rng(20_261_121)
    figures: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": platform.system(),
        },
        "passages": options.passages,
    }
    say(f"inventing {options.passages:,} passages")
    passages = corpus.texts(options.passages, random)
    queries = corpus.queries(passages, options.queries, random)
    figures["building"] = build(passages, random)
    figures["lexical"] = lexical(passages, queries)
    figures["first_stage"] = first_stage(queries)
    figures["page"] = pages(stack, queries[: options.pages])
    figures["ingest"] = ingest(options.ingested)
    figures["memory_mb"] = stack.memory_mb()
    return figures


# --- building ----------------------------------------------------------------------------------


def build(passages: Sequence[str], random: np.random.Generator) -> dict[str, float]:
    from benches import corpus
    from searchapp.models import Collection
    from searchapp.search import ann, segments, vectors

    say("storing, indexing, merging")
    collection = Collection.objects.create_with_owner(slug="bench", name="Bench", is_public=True)
    generation = vectors.ensure_generation(collection)
    ids = corpus.store_passages(collection, passages)
    indexing = Stopwatch()
    for start in range(0, len(ids), 2000):
        block = slice(start, start + 2000)
        segments.index_passages(collection, list(zip(ids[block], passages[block], strict=True)))
    indexing.stop()
    segments.merge_segments(collection, everything=True)
    writing = Stopwatch()
    for start in range(0, len(ids), 10_000):
        part = ids[start : start + 10_000]
        vectors.write_vectors(
            generation, part, corpus.unit_vectors(len(part), generation.dimension, random)
        )
    writing.stop()
    say("building the HNSW index")
    building = Stopwatch()
    if ann.needs_ann_index(generation):
        ann.build_ann_index(generation)
    building.stop()
    return {
        "indexed_passages_per_second": round(len(ids) / indexing.seconds),
        "vectors_per_second": round(len(ids) / writing.seconds),
        "ann_index_seconds": round(building.seconds, 1),
        "ann_recall_at_100": round(ann.ann_recall(generation, 20, DEPTH), 3),
    }


# --- searching ---------------------------------------------------------------------------------


def lexical(passages: Sequence[str], queries: Sequence[str]) -> dict[str, Any]:
    """Our leg, permission and database included, against two libraries that hold all in memory."""
    import bm25s

    from rerank.ranking.analysis import query_terms, terms
    from searchapp.models import Collection
    from searchapp.search.access import operator
    from searchapp.search.lexical import lexical_candidates

    collection = Collection.objects.get(slug="bench")
    user = operator()
    wanted = [query_terms(query, "en") for query in queries]
    say("lexical leg")
    ours = timed(lambda query: lexical_candidates(collection, user, query, DEPTH), wanted)
    long_query = [term for query in wanted for term in query][:300]
    long = timed(lambda query: lexical_candidates(collection, user, query, DEPTH), [long_query] * 9)
    say("rank_bm25 and bm25s")
    analysed = [terms(passage, "en") for passage in passages]
    found = lexical_candidates(collection, user, wanted[0], DEPTH, variant="okapi", k1=1.5, b=0.75)
    theirs, difference = rank_bm25(analysed, wanted[:20], [score for _, score in found])
    gc.collect()
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    library = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    library.index(analysed, show_progress=False)
    fast = timed(lambda query: library.retrieve([query], k=DEPTH, show_progress=False), wanted)
    return {
        "podium": ours,
        "podium_300_words": long,
        "rank_bm25": theirs,
        "bm25s": fast,
        "times_faster_than_rank_bm25": round(theirs["p50_ms"] / ours["p50_ms"], 1),
        "times_slower_than_bm25s": round(ours["p50_ms"] / fast["p50_ms"], 2),
        "largest_difference_to_rank_bm25": difference,
    }


def rank_bm25(
    analysed: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]], found: Sequence[float]
) -> tuple[dict[str, float], float]:
    """Its times (scores only, no sorting), and how far our scores of the first query are off."""
    from rank_bm25 import BM25Okapi

    oracle = BM25Okapi(analysed)
    expected = np.sort(oracle.get_scores(wanted[0]))[::-1][: len(found)]
    return timed(oracle.get_scores, wanted), float(np.abs(expected - np.array(found)).max())


def first_stage(queries: Sequence[str]) -> dict[str, Any]:
    """Both legs and fusion with the query's vector from the embed worker; nothing reranks."""
    from searchapp.engine import remote
    from searchapp.models import Collection
    from searchapp.search import pipeline

    say("first stage")
    collection = Collection.objects.select_related("active_config", "active_generation").get(
        slug="bench"
    )
    embedder, user = remote.embedder(), pipeline.operator()

    def run(query: str) -> dict[str, float]:
        result = pipeline.start(query, collection, user=user, embedder=embedder)
        if result.legs["dense"].status != "ok":
            raise RuntimeError(f"the dense leg did not run: {result.legs['dense'].reason}")
        return dict(result.timings_ms)

    run(queries[0])
    stages = [run(query) for query in queries]
    return {
        name: percentiles([each[name] for each in stages])
        for name in ("lexical", "embed", "dense", "fusion", "first_stage")
    }


def pages(stack: Stack, queries: Sequence[str]) -> dict[str, Any]:
    """The page's time over HTTP while the rerank worker is kept busy by these very searches."""
    say("pages while a worker reranks")

    def load(query: str) -> None:
        address = (
            f"{stack.address}/search?{urllib.parse.urlencode({'q': query, 'collection': 'bench'})}"
        )
        with urllib.request.urlopen(address, timeout=30) as answer:
            if b"Synthetic" not in answer.read():
                raise RuntimeError("the page shows no hit")

    for query in queries[:5]:
        load(query)
    return timed(load, queries)


# --- ingesting ---------------------------------------------------------------------------------


def ingest(count: int) -> dict[str, Any]:
    """Parse to vectors in this process, against a bare encode of the same passages."""
    import tempfile
    from pydoc_data.topics import topics

    from sentence_transformers import SentenceTransformer

    from rerank.inference.models import embedder_facts
    from searchapp.engine import local
    from searchapp.ingest.inline import finish_here
    from searchapp.ingest.receive import receive
    from searchapp.models import Collection, Passage
    from searchapp.models.corpus import compose_indexed_text

    say("ingest")
    local.warm_up_embedder()
    collection = Collection.objects.create_with_owner(slug="ingest", name="Ingest")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        size = 0
        for name, text in sorted(topics.items()):
            if size > 700 * count:
                break
            path = Path(folder) / f"{name}.txt"
            path.write_text(text, encoding="utf-8")
            paths.append(path)
            size += len(text)
        watch = Stopwatch()
        finish_here(receive(collection, paths, enqueue=False))
        watch.stop()
    rows = Passage.objects.filter(collection=collection).select_related("document")
    texts = [compose_indexed_text(row.document.title, row.heading_path, row.text) for row in rows]
    model = SentenceTransformer(str(embedder_facts("").directory), device="cpu")
    model.encode(texts[:32])
    bare = Stopwatch()
    model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    bare.stop()
    return {
        "passages": len(texts),
        "podium_passages_per_second": round(len(texts) / watch.seconds, 1),
        "bare_encode_passages_per_second": round(len(texts) / bare.seconds, 1),
        "share_of_bare_encode": round(bare.seconds / watch.seconds, 2),
    }


# --- reporting ---------------------------------------------------------------------------------

TARGETS = [
    (
        "lexical leg, times faster than rank_bm25",
        ("lexical", "times_faster_than_rank_bm25"),
        ">=",
        50,
    ),
    ("lexical leg, times slower than bm25s", ("lexical", "times_slower_than_bm25s"), "<=", 10),
    ("first stage p95, ms", ("first_stage", "first_stage", "p95_ms"), "<", 60),
    ("page p95 while reranking, ms", ("page", "p95_ms"), "<", 150),
    ("ingest, share of a bare encode", ("ingest", "share_of_bare_encode"), ">=", 0.7),
    ("web process, MB", ("memory_mb", "web"), "<", 400),
]


def as_table(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    lines = [
        f"# First stage and ingest at {figures['passages']:,} passages",
        "",
        f"One run of `make bench-search` on {machine['cores']} cores ({machine['processor']}). "
        "Words and stored vectors are synthetic, queries are embedded by the real model.",
        "",
        "| target | limit | measured | |",
        "|---|---|---|---|",
    ]
    for name, path, sign, limit in TARGETS:
        value: Any = figures
        for key in path:
            value = value[key]
        met = value >= limit if sign == ">=" else value <= limit if sign == "<=" else value < limit
        lines.append(f"| {name} | {sign} {limit} | {value} | {'met' if met else 'missed'} |")
    lines += ["", "| milliseconds | p50 | p95 |", "|---|---|---|"]
    rows = [
        *((f"lexical leg: {name}", figures["lexical"][name]) for name in _LEXICAL),
        *((f"first stage: {name}", times) for name, times in figures["first_stage"].items()),
        ("search page while a worker reranks", figures["page"]),
    ]
    lines += [f"| {name} | {each['p50_ms']} | {each['p95_ms']} |" for name, each in rows]
    lines += ["", "| other | |", "|---|---|"]
    others = {**figures["building"], **figures["ingest"]}
    others |= {f"memory, MB: {name}": size for name, size in figures["memory_mb"].items()}
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in others.items()]
    return "\n".join(lines) + "\n"


_LEXICAL = ["podium", "podium_300_words", "rank_bm25", "bm25s"]


def timed(work: Callable[[Any], Any], arguments: Sequence[Any]) -> dict[str, float]:
    """Milliseconds of each call; the first is a warm-up of its own."""
    work(arguments[0])
    taken = []
    for argument in arguments:
        watch = Stopwatch()
        work(argument)
        watch.stop()
        taken.append(1000 * watch.seconds)
    return percentiles(taken)


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}


class Stopwatch:
    """Wall-clock seconds from its making to `stop`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._began


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
