"""The API over HTTP with keep-alive: `make bench-api` or `python -m benches.api`.

A whole Podium of its own on this machine, which the callers share. First with a reranker that costs
nothing, so that all the rest shows: what /v1/models/rerank adds to the engine, adding documents
with several clients, searching 100,000 passages, and calls that arrive by chance. Then the same
calls with the built-in model.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benches.load import Call, closed_loop, english, figures_of, open_loop, processor, say
from benches.report import Report
from benches.stack import ROOT, Stack

OUTPUT = ROOT / "docs" / "benchmarks"
NO_LIMITS = {
    name: str(10**12)
    for name in (
        "API_REQUESTS_PER_MINUTE",
        "API_FAST_BYTES_PER_MINUTE",
        "API_FAST_PAIRS_PER_MINUTE",
    )
} | {"RERANK_QUEUE_LIMIT": "100000"}
PARTS = ["overhead", "adding", "searching", "chance", "model"]
DOCUMENTS = 50
CHARACTERS = 2000
ADDED_CHARACTERS = 400
# Calls a second with the null reranker: the published assessment's ten, and more.
NULL_RATES = (1.0, 10.0, 40.0)
SHARES = (0.3, 0.6, 0.9)
BY_CHANCE = "Rerank calls that arrive by chance (Poisson), from arrival to answer"
LIMITS_MS = (150, 250, 500, 1000, 3000)
# What ZeroEntropy published of its hosted zerank-2: 1 to 10 calls a second for a minute, 50
# documents of up to 2 KB; the hardware behind it and the distance to it are not stated.
PUBLISHED = {150: 0.505, 250: 0.113, 500: 0.027, 1000: 0.009, 3000: 0.0}


class Client:
    """One connection that is kept open; for one thread."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, path: str, body: object) -> tuple[int, Any]:
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


class Rerank:
    """Calls of /v1/models/rerank, for any number of threads; no two are alike."""

    def __init__(self, port: int, key: str, seed: int = 42) -> None:
        self._port, self._key = port, key
        self._texts = english(CHARACTERS - 37, 40 * DOCUMENTS)
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._own = threading.local()

    def body(self) -> dict[str, Any]:
        with self._lock:
            picked = self._random.choice(len(self._texts), DOCUMENTS, replace=False)
        words = self._texts[picked[0]].split()[5:13]
        documents = [f"{uuid.uuid4()} {self._texts[place]}" for place in picked]
        return {"query": f"{uuid.uuid4()} {' '.join(words)}", "documents": documents}

    def call(self, arrived: float) -> Call:
        """`arrived` by time.perf_counter; counted from then to the whole answer."""
        if not hasattr(self._own, "client"):
            self._own.client = Client(self._port, self._key)
        body = {"model": "zerank-2", "latency": "fast", **self.body()}
        try:
            status, answer = self._own.client.post("/v1/models/rerank", body)
        except (OSError, http.client.HTTPException):
            del self._own.client
            return Call(0.0, "failed", "connection", 0, 0, 0, 0)
        took = (time.perf_counter() - arrived) * 1000
        inference = 1000 * answer["inference_latency"] if status == 200 else 0.0
        named = "ok" if status == 200 else "failed"
        return Call(took, named, str(status), 0, 0, inference, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=300, help="of the overhead part")
    parser.add_argument("--documents", type=int, default=4000, help="that are added")
    parser.add_argument("--clients", type=int, default=8, help="that add them")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60, help="at each rate")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    report = Report(
        options.output,
        "api",
        "The API over HTTP",
        "One run of `make bench-api` (`python -m benches.api`): clients, web process, workers, "
        "PostgreSQL and Redis on one machine. Milliseconds. A rerank call is one query with "
        f"{DOCUMENTS} documents of {CHARACTERS:,} characters, none seen before.",
        {"processor": processor(), "cores": os.cpu_count()},
    )
    if set(options.parts) - {"model"}:
        with Stack(NO_LIMITS, null_reranker=True) as stack:
            _without_model(stack, report, options)
    if "model" in options.parts:
        with Stack(NO_LIMITS) as stack:
            _poisson_of_model(stack, report, options)
    _published(report)
    report.write()


def _without_model(stack: Stack, report: Report, options: argparse.Namespace) -> None:
    key = _set_up(stack)
    if "overhead" in options.parts:
        _overhead(stack, key, report, options.calls)
    if "adding" in options.parts:
        _adding(stack, key, report, options)
    if "searching" in options.parts:
        _searching(stack, key, report, options)
    if "chance" in options.parts:
        rerank = Rerank(stack.port, key)
        for rate in NULL_RATES:
            _poisson(rerank, report, "null reranker", rate, options.seconds)
    report.write()


def _poisson_of_model(stack: Stack, report: Report, options: argparse.Namespace) -> None:
    key = _set_up(stack)
    rerank = Rerank(stack.port, key)
    say("one caller, then the saturation")
    closed_loop(rerank, 1, 5)  # type: ignore[arg-type]
    began = time.perf_counter()
    # Few enough that none waits past its deadline.
    calls = closed_loop(rerank, 3, options.seconds / 2)  # type: ignore[arg-type]
    saturation = sum(call.status == "ok" for call in calls) / (time.perf_counter() - began)
    for share in SHARES:
        name = f"built-in model, {share:.0%} of saturation"
        _poisson(rerank, report, name, share * saturation, options.seconds)


def _set_up(stack: Stack) -> str:
    """An API key; sets Django up for the stack's database."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "searchapp.settings")
    import django

    django.setup()
    return stack.api_key()


# --- what the endpoint adds --------------------------------------------------------------------


def _overhead(stack: Stack, key: str, report: Report, count: int) -> None:
    """HTTP and the engine's own call in turns, so that both see the same machine."""
    from searchapp.engine import remote
    from searchapp.engine.sockets import TextsJob

    say("overhead of /v1/models/rerank")
    rerank, client, socket = Rerank(stack.port, key), Client(stack.port, key), remote.reranker()
    over_http, of_engine = [], []
    for number in range(count + 20):
        body = {"model": "zerank-2", "latency": "fast", **rerank.body()}
        began = time.perf_counter()
        status, _ = client.post("/v1/models/rerank", body)
        between = time.perf_counter()
        job = TextsJob(body["query"], body["documents"], time.time() + 10)
        outcome = socket.collect(socket.submit(job), job.deadline)
        ended = time.perf_counter()
        if status != 200 or outcome.status != "ok":
            raise RuntimeError(f"a rerank failed: {status}, {outcome.reason}")
        if number >= 20:  # the first ones open connections
            over_http.append(1000 * (between - began))
            of_engine.append(1000 * (ended - between))
    for name, times in {
        "whole call over HTTP": over_http,
        "engine's call without HTTP": of_engine,
        "difference": np.array(over_http) - np.array(of_engine),
    }.items():
        report.add("Rerank, null reranker, one caller", {"": name, **_percentiles(times)})
    report.write()


# --- adding ------------------------------------------------------------------------------------


def _adding(stack: Stack, key: str, report: Report, options: argparse.Namespace) -> None:
    say(f"{options.clients} clients add {options.documents} documents")
    texts = english(ADDED_CHARACTERS, options.documents)
    Client(stack.port, key).post("/v1/collections/add-collection", {"collection_name": "added"})
    places = iter(range(options.documents))
    lock = threading.Lock()

    def add_some() -> list[float]:
        client, times = Client(stack.port, key), []
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return times
            body = {
                "collection_name": "added",
                "path": f"notes/{place}.txt",
                "content": {"type": "text", "text": texts[place]},
                "metadata": {"shelf": f"s{place % 20}"},
            }
            began = time.perf_counter()
            status, answer = client.post("/v1/documents/add-document", body)
            if status != 201:
                raise RuntimeError(f"a document was not added: {status} {answer}")
            times.append(1000 * (time.perf_counter() - began))

    before, began = stack.cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        running = [pool.submit(add_some) for _ in range(options.clients)]
        times = [took for each in running for took in each.result()]
    took = time.perf_counter() - began
    spent = {kind: used - before.get(kind, 0.0) for kind, used in stack.cpu_seconds().items()}
    indexed = _seconds_until_indexed(stack, key, options.documents, began)
    report.add(
        f"Adding documents of {ADDED_CHARACTERS} characters, {options.clients} clients",
        {
            "documents": options.documents,
            "added per second": round(options.documents / took, 1),
            **_percentiles(times),
            "seconds until all were added": round(took, 1),
            "seconds until all were indexed": round(indexed, 1),
        },
    )
    per_document = {
        kind: round(1000 * seconds / options.documents, 2) for kind, seconds in spent.items()
    }
    report.add("CPU milliseconds per document until all were added", per_document)
    report.write()


def _seconds_until_indexed(stack: Stack, key: str, count: int, began: float) -> float:
    client, body = Client(stack.port, key), {"collection_name": "added"}
    while time.perf_counter() - began < 600:
        _, status = client.post("/v1/status/get-status", body)
        if status["num_indexed_documents"] == count:
            return time.perf_counter() - began
        time.sleep(0.5)
    raise RuntimeError(f"after ten minutes not all documents are indexed: {status}")


# --- searching ---------------------------------------------------------------------------------


def _searching(stack: Stack, key: str, report: Report, options: argparse.Namespace) -> None:
    from benches import corpus
    from benches.search import build

    random = np.random.default_rng(20_261_121)
    passages = corpus.texts(options.passages, random)
    build(passages, random)
    queries = corpus.queries(passages, options.queries, random)
    client = Client(stack.port, key)
    for name, more in {
        "top-snippets": {},
        "top-snippets, precise": {"precise_responses": True},
        "top-documents": {},
    }.items():
        say(name)
        path = f"/v1/queries/{name.split(',')[0]}"
        body = {"collection_name": "bench", "k": 10, "reranker": None, **more}
        times = _timed(lambda query: client.post(path, {**body, "query": query}), queries)  # noqa: B023
        report.add(
            f"Searching {options.passages:,} passages without a reranker, one caller",
            {"": name, **_percentiles(times)},
        )
    report.write()


def _timed(ask: Callable[[str], tuple[int, Any]], queries: Sequence[str]) -> list[float]:
    times = []
    for number, query in enumerate([*queries[:5], *queries]):
        began = time.perf_counter()
        status, answer = ask(query)
        if status != 200 or not answer["results"]:
            raise RuntimeError(f"a search failed: {status} {answer}")
        if number >= 5:
            times.append(1000 * (time.perf_counter() - began))
    return times


# --- by chance ---------------------------------------------------------------------------------


def _poisson(rerank: Rerank, report: Report, name: str, rate: float, seconds: float) -> None:
    say(f"{name}: {rate:.2f} calls a second for {seconds:.0f} s")
    began = time.perf_counter()
    calls = open_loop(rerank, rate, seconds, 42)  # type: ignore[arg-type]
    found = figures_of(calls, time.perf_counter() - began)
    report.add(
        BY_CHANCE,
        {
            "": name,
            "calls/s": round(rate, 2),
            "calls": found["calls"],
            "failed": found["failed"] + found["overloaded"],
            **{each: found[f"{each}_ms"] for each in ("p50", "p95", "p99")},
            **{f"> {limit} ms": f"{found['share_over_ms'][str(limit)]:.1%}" for limit in LIMITS_MS},
            "mean inference": found["mean_inference_ms"],
        },
    )


def _published(report: Report) -> None:
    row: dict[str, Any] = {"": "zerank-2 as its vendor published it (hosted)", "calls/s": "1 to 10"}
    row |= {f"> {limit} ms": f"{share:.1%}" for limit, share in PUBLISHED.items()}
    report.add(BY_CHANCE, row)


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(np.asarray(times), [50, 95, 99])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)}


if __name__ == "__main__":
    main()
