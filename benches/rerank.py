"""Cross-encoders on the CPU, side by side: `make bench-rerank` or `python -m benches.rerank`.

100 candidates of 20 to 300 tokens per query, from texts to the sorted result, on all cores. Each
row runs in a process of its own and the rows take turns, request by request. Rows of libraries that
do not go with Podium's own versions run under the interpreter given by --peers, which has
benches/peers.txt installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benches.chart import bars
from benches.rerank_data import Asked, from_folder, from_topics

ROOT = Path(__file__).resolve().parent.parent
CANDIDATES = 100
BASELINE = "predict"


@dataclass(frozen=True)
class Kind:
    """`peer`: runs under the other interpreter. `dtype`: whose peak it is measured against."""

    title: str
    dtype: str = "float32"
    peer: bool = False


ROWS: dict[str, Kind] = {
    "predict": Kind("sentence-transformers predict"),
    "predict_bf16": Kind("sentence-transformers predict, bf16", "bfloat16"),
    "podium": Kind("Podium, fp32"),
    "podium_bf16": Kind("Podium, bf16", "bfloat16"),
    "onnx": Kind("sentence-transformers, ONNX", peer=True),
    "openvino": Kind("sentence-transformers, OpenVINO fp32", peer=True),
    "openvino_bf16": Kind("sentence-transformers, OpenVINO bf16", "bfloat16", peer=True),
    "flashrank": Kind("FlashRank's runtime, fp32", peer=True),
}


class Worker:
    """A row in its own process. Raises RuntimeError with the end of its log when it dies."""

    def __init__(self, python: str, row: str, folder: Path) -> None:
        self._log = folder / f"{row}.log"
        self._process = subprocess.Popen(
            [python, "-m", "benches.rerank_rows", row, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
        )
        self._answer()

    def ask(self, what: object) -> dict[str, Any]:
        if self._process.stdin is None:
            raise RuntimeError("the worker has no standard input")
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._process.wait(timeout=60)
            tail = self._log.read_text().strip().splitlines() or ["no message"]
            raise RuntimeError(tail[-1])
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--data", type=Path, help="a judged folder in BEIR's format")
    parser.add_argument("--peers", help="an interpreter with benches/peers.txt")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--skip-prefix", action="store_true")
    parser.add_argument("--skip-growth", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    options.output.mkdir(parents=True, exist_ok=True)
    table = as_table(figures)
    (options.output / "rerank.json").write_text(json.dumps(figures, indent=2) + "\n")
    (options.output / "rerank.md").write_text(table)
    (options.output / "rerank.svg").write_text(as_chart(figures))
    sys.stdout.write(table)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    say("fitting the head")
    train, asked = _requests(options)
    tokens = _prepare(folder, train, asked)
    say("matrix products")
    peaks = matmul_peaks()
    figures: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "load_at_start": round(os.getloadavg()[0], 1),
        },
        "threads": os.cpu_count(),
        "queries": len(asked),
        "candidates": CANDIDATES,
        "tokens_per_query": round(statistics.mean(map(sum, tokens))),
        "data": options.data.name if options.data else "Python's manual",
        "matmul_gflops": peaks,
    }
    workers, absent = _start(folder, options)
    say(f"{len(asked)} requests, {len(workers)} rows")
    found = _rounds(workers, len(asked))
    for worker in workers.values():
        worker.close()
    figures["growth"] = {} if options.skip_growth else _growth(folder)
    work = [useful_gflop(each) for each in tokens]
    figures["rows"] = {
        row: _row_figures(row, found, asked, work, peaks) for row in ROWS if row in found
    }
    figures["absent"] = absent
    figures["prefix"] = {} if options.skip_prefix else _prefix()
    return figures


def _requests(options: argparse.Namespace) -> tuple[list[Asked], list[Asked]]:
    """What the head is fitted to, and what is measured."""
    if options.data is None:
        return from_topics(30, 30, 1), from_topics(options.queries, CANDIDATES, 2)
    return (
        from_folder(options.data, 30, 30, 1),
        from_folder(options.data, options.queries, CANDIDATES, 2),
    )


def _prepare(folder: Path, train: Sequence[Asked], asked: Sequence[Asked]) -> list[list[int]]:
    """The model and the requests as files; the tokens of each pair of each request."""
    from tokenizers import Tokenizer

    from benches.rerank_model import MAX_TOKENS, save_fitted

    model = save_fitted(folder / "model", train)
    (folder / "requests.json").write_text(json.dumps([asdict(one) for one in asked]))
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS, strategy="only_second")
    tokenizer.no_padding()
    return [
        [len(pair.ids) for pair in tokenizer.encode_batch([(a.query, d) for d in a.documents])]
        for a in asked
    ]


def _start(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Worker], dict[str, str]]:
    """The rows that run, and why the others do not."""
    workers: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    exported: set[str] = set()
    for row in options.rows:
        kind = ROWS[row]
        if kind.peer and not options.peers:
            absent[row] = "no interpreter with benches/peers.txt was given (--peers)"
            continue
        python = options.peers if kind.peer else sys.executable
        say(f"starting {kind.title}")
        try:
            for backend in _EXPORTS.get(row, ()):
                if backend not in exported:
                    Worker(python, f"export_{backend}", folder).close()
                    exported.add(backend)
            workers[row] = Worker(python, row, folder)
        except RuntimeError as error:
            absent[row] = str(error)
    return workers, absent


_EXPORTS = {
    "onnx": ["onnx"],
    "flashrank": ["onnx"],
    "openvino": ["openvino"],
    "openvino_bf16": ["openvino"],
}


def _rounds(workers: Mapping[str, Worker], requests: int) -> dict[str, list[dict[str, Any]]]:
    """Every row's answers, request by request in turn; each first request once unmeasured."""
    found: dict[str, list[dict[str, Any]]] = {row: [] for row in workers}
    for worker in workers.values():
        worker.ask(0)
    for place in range(requests):
        for row, worker in workers.items():
            found[row].append(worker.ask(place))
            # Threads that wait for work in a loop have given up by then.
            time.sleep(0.3)
    return found


def _row_figures(
    row: str,
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    asked: Sequence[Asked],
    work: Sequence[float],
    peaks: Mapping[str, float],
) -> dict[str, float]:
    from scipy.stats import kendalltau

    times = [answer["ms"] for answer in found[row]]
    base = found[BASELINE] if BASELINE in found else found[row]
    pairs = list(zip(found[row], base, strict=True))
    rate = CANDIDATES * len(times) / sum(times) * 1000
    base_rate = CANDIDATES * len(base) / sum(answer["ms"] for answer in base) * 1000
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "pairs_per_second": round(rate, 1),
        "ratio": round(rate / base_rate, 2),
        "largest_difference": max(
            float(np.abs(np.subtract(own["scores"], other["scores"])).max()) for own, other in pairs
        ),
        "kendall_tau": round(
            statistics.mean(float(kendalltau(a["scores"], b["scores"])[0]) for a, b in pairs), 4
        ),
        "ndcg@10": round(
            statistics.mean(
                ndcg(answer["scores"], one.grades)
                for answer, one in zip(found[row], asked, strict=True)
            ),
            4,
        ),
        "share_of_peak": round(sum(work) / sum(times) * 1000 / peaks[ROWS[row].dtype], 3),
        "peak_mb": round(max(answer["peak_mb"] for answer in found[row])),
    }


def ndcg(scores: Sequence[float], grades: Sequence[int]) -> float:
    """nDCG@10 of one query, by the judgments of these candidates."""
    from rerank.ranking.metrics import per_query

    run = {"q": {str(place): float(score) for place, score in enumerate(scores)}}
    qrels = {"q": {str(place): grade for place, grade in enumerate(grades)}}
    return float(per_query(run, qrels, ["nDCG@10"])["nDCG@10"]["q"])


def useful_gflop(lengths: Sequence[int], layers: int = 6, width: int = 384) -> float:
    """What the model's scores need at least: every token once through all layers but the last, of
    which only keys, values and the first token are needed."""
    tokens, squares = sum(lengths), sum(length**2 for length in lengths)
    inside = (layers - 1) * (24 * width**2 * tokens + 4 * width * squares)
    last = 4 * width**2 * tokens + len(lengths) * 20 * width**2 + 4 * width * tokens
    return (inside + last) / 1e9


def matmul_peaks() -> dict[str, float]:
    """GFLOP/s of the fastest of some matrix products, per number format, on all cores."""
    import torch

    from rerank.inference.packed_bert import Linear

    peaks = {}
    for dtype in (torch.float32, torch.bfloat16):
        best = 0.0
        with torch.inference_mode():
            for tokens, inner, outer in [(4096, 4096, 4096), (2048, 1536, 384), (2048, 384, 1536)]:
                x = torch.randn(tokens, inner, dtype=dtype)
                layer = torch.nn.Linear(inner, outer, dtype=dtype)
                for way in (layer, Linear.of(layer)):
                    for _ in range(4 if inner == 4096 else 40):
                        started = time.perf_counter()
                        way(x)
                        taken = time.perf_counter() - started
                        best = max(best, 2 * tokens * inner * outer / taken / 1e9)
        peaks[str(dtype).removeprefix("torch.")] = round(best, 1)
    return peaks


def _growth(folder: Path) -> dict[str, float]:
    """Small requests in a process of their own."""
    say("2,000 small requests")
    worker = Worker(sys.executable, "podium_bf16", folder)
    sizes = worker.ask("grow")
    worker.close()
    return sizes


def _prefix() -> dict[str, float]:
    from benches import prefix

    say("prefix sharing")
    return {name: round(value, 6) for name, value in prefix.measure(rounds=3).items()}


# --- reporting ---------------------------------------------------------------------------------


def as_table(figures: Mapping[str, Any]) -> str:
    machine, rows = figures["machine"], figures["rows"]
    peaks = figures["matmul_gflops"]
    lines = [
        f"# {CANDIDATES} candidates through a MiniLM cross-encoder on a CPU",
        "",
        f"One run of `make bench-rerank` on {machine['cores']} cores ({machine['processor']}), "
        f"{figures['threads']} threads, load {machine['load_at_start']} at the start: "
        f"{figures['queries']} queries from {figures['data']}, on average "
        f"{figures['tokens_per_query']:,} tokens each (pairs of about 20 to 300 tokens), from "
        "texts to the sorted result. Rows take turns. The largest matrix products reach "
        f"{peaks['float32']:,} GFLOP/s in fp32 and {peaks['bfloat16']:,} in bf16.",
        "",
        "![Pairs per second](rerank.svg)",
        "",
        "| row | p50 ms | p95 ms | pairs/s | ratio | largest difference | tau | nDCG@10 | "
        "share of peak | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, each in rows.items():
        lines.append(
            f"| {ROWS[row].title} | {each['p50_ms']} | {each['p95_ms']} | "
            f"{each['pairs_per_second']} | {each['ratio']}x | {each['largest_difference']:.1e} | "
            f"{each['kendall_tau']} | {each['ndcg@10']} | {each['share_of_peak']:.0%} | "
            f"{each['peak_mb']} |"
        )
    lines += [
        f"| {ROWS[row].title} | absent: {why} | | | | | | | | |"
        for row, why in figures["absent"].items()
    ]
    lines += [
        "",
        "Ratio, difference (of the logits) and tau are against sentence-transformers predict in "
        "its default settings. Share of peak: the arithmetic that the scores need at least (no "
        "padding, of the last layer the first token only), over time and the measured peak of the "
        "row's number format.",
        "",
        "| target | limit | measured | |",
        "|---|---|---|---|",
    ]
    for name, limit, value, met in targets(figures):
        lines.append(f"| {name} | {limit} | {value} | {'met' if met else 'missed'} |")
    return "\n".join(lines) + "\n"


def targets(figures: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(name, limit, measured, met), for what was measured."""
    rows, found = figures["rows"], []
    exact, rounded, base = (rows.get(row) for row in ("podium", "podium_bf16", BASELINE))
    if exact and base:
        ratio, difference = exact["ratio"], exact["largest_difference"]
        found += [
            ("fp32, times predict", ">= 2.3", str(ratio), ratio >= 2.3),
            ("fp32, largest difference", "<= 1e-4", f"{difference:.1e}", difference <= 1e-4),
        ]
    if rounded and base:
        ratio, tau = rounded["ratio"], rounded["kendall_tau"]
        drop = abs(rounded["ndcg@10"] - base["ndcg@10"])
        found += [
            ("bf16, times predict", ">= 4.3", str(ratio), ratio >= 4.3),
            ("bf16, Kendall tau", ">= 0.99", str(tau), tau >= 0.99),
            ("bf16, change of nDCG@10", "<= 0.002", f"{drop:.4f}", drop <= 0.002),
        ]
        fastest = max(rows, key=lambda row: rows[row]["pairs_per_second"])
        found.append(("fastest row", "Podium", ROWS[fastest].title, "podium" in fastest))
    if figures["prefix"]:
        ratio, difference = figures["prefix"]["ratio"], figures["prefix"]["largest_difference"]
        found += [
            ("prefix sharing, tiny Qwen3, times", ">= 2.5", f"{ratio:.2f}", ratio >= 2.5),
            ("prefix sharing, difference", "<= 1e-4", f"{difference:.1e}", difference <= 1e-4),
        ]
    if figures["growth"]:
        grown = figures["growth"]["mb_at_2000"] - figures["growth"]["mb_at_200"]
        found.append(("MB grown from request 200 to 2,000", "< 5", f"{grown:.1f}", grown < 5))
    return found


def as_chart(figures: Mapping[str, Any]) -> str:
    rows = sorted(figures["rows"].items(), key=lambda row: -row[1]["pairs_per_second"])
    return bars(
        f"Pairs per second, {CANDIDATES} candidates, {figures['threads']} CPU threads",
        [
            (
                ROWS[row].title,
                each["pairs_per_second"],
                f"{each['pairs_per_second']:.0f} ({each['ratio']}x)",
                row.startswith("podium"),
            )
            for row, each in rows
        ],
    )


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _processor() -> str:
    from benches.search import _processor as name

    return name()


if __name__ == "__main__":
    main()
