"""How the rerank worker holds up under load: `python -m benches.load`.

Through the real way of a search's rerank: a job by Celery to a worker process that reads the texts
from Postgres, scores them, and answers over Redis; both servers are private to the run. First the
saturation: so many callers that always ask again. Then calls that arrive by chance (Poisson) and
whoever else waits, at 30, 60 and 90 % of it. A call is one query with 50 documents; it counts from
its arrival. A token nobody saw before stands before query and documents, so no score is cached.

    python -m benches.load                                    # the built-in model, 500 characters
    python -m benches.load --model random:zerank-2 --characters 2048 --device cuda   # on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benches.bars import write_bars

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "benchmarks"
SHARES = (0.3, 0.6, 0.9)
LIMITS_MS = (150, 250, 500, 1000, 3000)
# Open calls at most, as in the published assessment; more would be this bench's own overload.
MOST_OPEN = 256
PATIENCE_SECONDS = 30.0
RANDOM = "random:"
BUSY = "overloaded"


@dataclass(frozen=True)
class Call:
    """`ms` from its arrival to its answer."""

    ms: float
    status: str
    code: str
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    cached: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Verbatim)
    parser.add_argument("--model", default="", help="RERANK_MODEL; random:zerank-2 draws weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--characters", type=int, default=500, help="of one document")
    parser.add_argument("--seconds", type=float, default=60, help="at each rate")
    parser.add_argument("--saturation-seconds", type=float, default=20)
    parser.add_argument("--callers", type=int, default=32, help="to find the saturation")
    parser.add_argument("--concurrency", type=int, default=32, help="threads of the worker")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--name", default="load", help="of the files in --output")
    options = parser.parse_args()
    with worker(options):
        figures = measure(options)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / options.name
    path.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")
    table = as_table(figures)
    path.with_suffix(".md").write_text(table)
    write_bars(
        path.with_suffix(".svg"),
        f"Milliseconds per call under load, {figures['model']} on {figures['device']}",
        "ms",
        {
            f"{rate['share_of_saturation']:.0%} of saturation": {
                name: rate[f"{name}_ms"] for name in ("p50", "p95", "p99")
            }
            for rate in figures["rates"]
        },
    )
    sys.stdout.write(table)


class _Verbatim(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


# --- the worker --------------------------------------------------------------------------------


@contextmanager
def worker(options: argparse.Namespace) -> Iterator[None]:
    """Private servers with tables, and a rerank worker ready for them; sets this process'
    environment."""
    folder = Path(tempfile.mkdtemp(prefix="podium-load-"))
    folder.chmod(0o755)  # as root the database runs as another user
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    model = _model(options, folder)
    os.environ |= {
        "VAR_DIR": str(folder / "var"),
        "DJANGO_SETTINGS_MODULE": "searchapp.settings",
        "RERANK_MODEL": model,
        "DEVICE": options.device,
        "RERANK_DTYPE": options.dtype,
        # What is refused is what the worker refuses.
        "RERANK_QUEUE_LIMIT": "100000",
        "DATABASE_POOL_SIZE": "40",
        "TOKENIZERS_PARALLELISM": "false",
    }
    from searchapp.embedded.servers import start_servers

    servers = start_servers(folder / "var", dies_with_us=True)
    process = None
    try:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        process = _start_worker(options, folder / "worker.log", judged=not _is_random(options))
        yield
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _start_worker(
    options: argparse.Namespace, log: Path, *, judged: bool
) -> subprocess.Popen[bytes]:
    from searchapp.engine import presence

    module = ["-m", "celery"] if judged else ["-m", "benches.unjudged_worker"]
    threads = ["--pool=threads", f"--concurrency={options.concurrency}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *module, "-A", "searchapp", "worker", "--queues=gpu", *threads],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    end = time.monotonic() + 600
    while not (alive := presence.alive("gpu")):
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"The worker did not start:\n{log.read_text()}")
        time.sleep(0.2)
    if alive[0].reason:
        process.terminate()
        raise SystemExit(alive[0].reason)
    return process


def _is_random(options: argparse.Namespace) -> bool:
    return bool(options.model.startswith(RANDOM))


def _model(options: argparse.Namespace, folder: Path) -> str:
    """What RERANK_MODEL is to be; random weights are drawn into the folder."""
    if not _is_random(options):
        return str(options.model)
    import torch

    from benches import random_zerank
    from rerank.inference.devices import choose_device

    sizes = {"zerank-2": random_zerank.FULL_SIZE, "tiny": random_zerank.TINY_SIZE}
    size = sizes[options.model.removeprefix(RANDOM)]
    made, device = random_zerank.tokenizer(), choose_device(options.device)
    say("drawing the weights")
    random_zerank.save(folder / "random", size, made, device, torch.bfloat16)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return str(folder / "random")


# --- calls -------------------------------------------------------------------------------------


class Caller:
    """Asks as a search does; safe from any thread."""

    def __init__(self, documents: int, characters: int) -> None:
        from searchapp.engine import remote
        from searchapp.models import Collection, Document, Passage

        self._socket = remote.reranker()
        self._documents = documents
        self._random = np.random.default_rng(42)
        self._lock = threading.Lock()
        texts = english(characters - 37, 40 * documents)
        collection = Collection.objects.create_with_owner(slug="load", name="Load")
        document = Document.objects.create(collection=collection, path="load.txt", title="")
        rows = [
            Passage(
                collection=collection,
                document=document,
                ordinal=number,
                text=f"{uuid.uuid4()} {text}",
                start=0,
                end=1,
            )
            for number, text in enumerate(texts)
        ]
        self._ids = [row.pk for row in Passage.objects.bulk_create(rows, batch_size=1000)]
        self._texts = texts

    def call(self, arrived: float) -> Call:
        """`arrived` by time.perf_counter."""
        from searchapp.engine.sockets import RerankJob

        with self._lock:
            ids = [int(pk) for pk in self._random.choice(self._ids, self._documents, replace=False)]
            words = self._texts[int(self._random.integers(len(self._texts)))].split()[5:13]
        query = f"{uuid.uuid4()} {' '.join(words)}"
        deadline = time.time() + PATIENCE_SECONDS
        job = RerankJob(query, "", ids, [0.5] * len(ids), deadline)
        outcome = self._socket.collect(self._socket.submit(job), deadline)
        return Call(
            (time.perf_counter() - arrived) * 1000,
            outcome.status,
            outcome.code,
            outcome.tokenize_ms,
            outcome.queue_ms,
            outcome.inference_ms,
            outcome.cached,
        )


def english(characters: int, count: int) -> list[str]:
    """Windows of Python's own manual."""
    from pydoc_data.topics import topics

    whole = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    starts = np.random.default_rng(42).integers(0, len(whole) - characters, count)
    return [whole[start : start + characters] for start in starts]


def closed_loop(caller: Caller, callers: int, seconds: float) -> list[Call]:
    """So many callers, each asking again at once."""
    end = time.perf_counter() + seconds

    def ask() -> list[Call]:
        done = []
        while (now := time.perf_counter()) < end:
            done.append(caller.call(now))
        return done

    with ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(ask) for _ in range(callers)]
        return [call for each in asked for call in each.result()]


def open_loop(caller: Caller, rate: float, seconds: float, seed: int) -> list[Call]:
    """Calls that arrive with exponential gaps, `rate` a second, whether or not others wait."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, int(rate * seconds * 2) + 20))
    began = time.perf_counter()
    with ThreadPoolExecutor(MOST_OPEN) as pool:
        calls = []
        for arrival in arrivals[arrivals < seconds]:
            time.sleep(max(began + arrival - time.perf_counter(), 0.0))
            calls.append(pool.submit(caller.call, began + arrival))
        return [call.result() for call in calls]


# --- figures -----------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from searchapp.engine import presence

    say("storing documents")
    caller = Caller(options.documents, options.characters)
    say("warming up")
    closed_loop(caller, 4, 5)
    (info,) = presence.alive("gpu")
    say("one caller")
    alone = timed(lambda: closed_loop(caller, 1, options.saturation_seconds / 2))
    say(f"{options.callers} callers")
    full = timed(lambda: closed_loop(caller, options.callers, options.saturation_seconds))
    saturation = full["answered_per_second"]
    rates = []
    for share in SHARES:
        rate = share * saturation
        say(f"{share:.0%}: {rate:.2f} calls a second for {options.seconds:.0f} s")
        found = timed(lambda rate=rate: open_loop(caller, rate, options.seconds, 42))  # type: ignore[misc]
        rates.append({"share_of_saturation": share, "calls_per_second": round(rate, 2), **found})
    (last,) = presence.alive("gpu")
    return {
        "model": options.model or info.model,
        "device": info.device,
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "documents": options.documents,
        "characters": options.characters,
        "worker_threads": options.concurrency,
        "callers": options.callers,
        "one_caller": alone,
        "saturated": full,
        "rates": rates,
        "rows_per_batch": round(float(last.figures.get("rows_per_batch", 0.0)), 1),
    }


def timed(work: Callable[[], list[Call]]) -> dict[str, Any]:
    began = time.perf_counter()
    calls = work()
    return figures_of(calls, time.perf_counter() - began)


def figures_of(calls: list[Call], seconds: float) -> dict[str, Any]:
    """Times are those of answered calls, 0 where there was none. Failed: neither answered nor told
    that the reranker is busy."""
    answered = [call for call in calls if call.status == "ok"]
    overloaded = sum(call.code == BUSY for call in calls)
    times = np.array([call.ms for call in answered] or [0.0])
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {
        "calls": len(calls),
        "answered": len(answered),
        "answered_per_second": round(len(answered) / seconds, 2),
        "overloaded": overloaded,
        "failed": len(calls) - len(answered) - overloaded,
        "failed_by_code": dict(
            Counter(call.code for call in calls if call.status != "ok" and call.code != BUSY)
        ),
        "cached_pairs": sum(call.cached for call in calls),
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(float(times.max()), 1),
        "share_over_ms": {
            str(limit): round(float((times > limit).mean()), 4) for limit in LIMITS_MS
        },
        "mean_tokenize_ms": _mean([call.tokenize_ms for call in answered]),
        "mean_queue_ms": _mean([call.queue_ms for call in answered]),
        "mean_inference_ms": _mean([call.inference_ms for call in answered]),
    }


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 1) if values else 0.0


def as_table(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    alone, full = figures["one_caller"], figures["saturated"]
    lines = [
        "# The rerank worker under load",
        "",
        f"One run of `python -m benches.load`: {figures['model']} on {figures['device']}, a call "
        f"is a query with {figures['documents']} documents of {figures['characters']} characters. "
        f"Machine: {machine['cores']} cores, {machine['processor']}; callers, Postgres and Redis "
        "share it.",
        "",
        f"One caller: {alone['answered_per_second']} calls/s, p50 {alone['p50_ms']} ms. "
        f"{figures['callers']} callers: **{full['answered_per_second']} calls/s** (saturation), "
        f"p50 {full['p50_ms']} ms, {full['failed']} failed, {full['overloaded']} overloaded. "
        f"Rows per batch: {figures['rows_per_batch']}.",
        "",
        "Poisson arrivals; milliseconds from arrival to answer:",
        "",
        "| load | calls/s | calls | failed | overloaded | p50 | p95 | p99 | "
        + " | ".join(f"> {limit} ms" for limit in LIMITS_MS)
        + " | tokenise | queue | inference |",
        "|" + "---|" * (11 + len(LIMITS_MS)),
    ]
    for rate in figures["rates"]:
        over = [f"{100 * rate['share_over_ms'][str(limit)]:.1f} %" for limit in LIMITS_MS]
        cells = [
            f"{rate['share_of_saturation']:.0%}",
            rate["calls_per_second"],
            rate["calls"],
            rate["failed"],
            rate["overloaded"],
            *(round(rate[f"{name}_ms"]) for name in ("p50", "p95", "p99")),
            *over,
            *(rate[f"mean_{name}_ms"] for name in ("tokenize", "queue", "inference")),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


if __name__ == "__main__":
    main()
