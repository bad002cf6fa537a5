"""What the rerankers take of a CPU's memory: peak by batch budget, growth over 2,000 requests.

    python -m benches.memory

Every row is measured in a process of its own: loaded, warmed with one request, then either one
batch of so many tokens, or requests of one to four documents of 5 to 100 words. `grown` is from the
200th request to the last. Writes a table and JSON; needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers.utils import logging as transformers_logging

from benches.random_zerank import TINY_SIZE, Writer, save, tokenizer
from benches.report import Report, Row
from rerank.inference.batching import run_in_batches
from rerank.inference.loading import load_reranker
from rerank.types import RerankRequest
from tests.test_rerank.tiny import save_cross_encoder

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "untrained": "built-in joint MaxSim",
    "minilm": "cross-encoder of MiniLM's size",
    "zerank": "small Qwen3 (256 x 4 layers)",
}
DTYPES = ("float32", "bfloat16")
BUDGETS = (512, 2_048, 8_192, 32_768)
MINILM_SIZE = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
QWEN_SIZE = {
    **TINY_SIZE,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 768,
}
SETTLED = 200


def save_models(folder: Path) -> None:
    (folder / "minilm").mkdir()
    save_cross_encoder(folder / "minilm", **MINILM_SIZE)
    cpu = torch.device("cpu")
    save(folder / "zerank", QWEN_SIZE, tokenizer(), cpu, torch.float32)


def measure(name: str, folder: Path, dtype: str, budget: int, requests: int) -> Row:
    """One row: of a batch of `budget` tokens, or with 0 of so many requests."""
    before = _held()
    model: Any = load_reranker("" if name == "untrained" else str(folder / name), "cpu", dtype)
    writer, chance = Writer(7), np.random.default_rng(7)

    def ask(count: int) -> None:
        for _ in range(count):
            documents = [
                writer.words(int(chance.integers(5, 100))) for _ in range(chance.integers(1, 5))
            ]
            model.score(RerankRequest(writer.words(6), documents, None, [0.5] * len(documents)))

    ask(1)
    row: Row = {"model": MODELS[name], "format": dtype, "loaded_mb": _held() - before}
    if not budget:
        ask(SETTLED)
        settled = _held()
        ask(requests - SETTLED)
        return {**row, "requests": requests, "grown_mb": _held() - settled}
    documents = [writer.words(60) for _ in range(max(budget // 60, 1))]
    request = RerankRequest(writer.words(6), documents, None, [0.5] * len(documents))
    prepared = model.prepare(request)
    fitting = int(np.searchsorted(np.cumsum(prepared.lengths), budget, "right"))
    _forget_peak()
    held = _held()
    run_in_batches(
        prepared.lengths[:fitting],
        lambda places: model.run([(prepared, place) for place in places])[:, None],
        1,
        1 << 30,
        lambda _: False,
    )
    tokens = sum(prepared.lengths[:fitting])
    return {**row, "batch_tokens": tokens, "batch_mb": _peak() - held, "peak_mb": _peak()}


def _held() -> float:
    return psutil.Process().memory_info().rss / 1e6


def _peak() -> float:
    """Megabytes at most since `_forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("This system does not tell how much memory a process took at most.")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _in_own_process(folder: Path, name: str, dtype: str, budget: int, requests: int) -> Row:
    command = [sys.executable, "-m", "benches.memory", "--row", name, dtype, str(budget)]
    command += ["--folder", str(folder), "--requests", str(requests)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        why = ended.stderr.strip().splitlines() or ["no reason given"]
        return {"model": MODELS[name], "format": dtype, "not_measured": why[-1]}
    found: Row = json.loads(ended.stdout.splitlines()[-1])
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--budgets", nargs="*", type=int, default=list(BUDGETS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    if options.row:
        name, dtype, budget = options.row
        row = measure(name, options.folder, dtype, int(budget), options.requests)
        sys.stdout.write(json.dumps(row) + "\n")
        return
    about = (
        "One run of `python -m benches.memory`: resident megabytes, every row in a process of its "
        "own. `loaded`: with torch, weights and one request; `batch`: what one batch of so many "
        f"tokens takes on top; `grown`: from the {SETTLED}th request to the last."
    )
    report = Report(options.out, "memory", "Memory of the rerankers on a CPU", about)
    report.machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory(prefix="podium-bench-") as made:
        folder = Path(made)
        save_models(folder)
        for name in options.models:
            for dtype in DTYPES:
                for budget in options.budgets:
                    row = _in_own_process(folder, name, dtype, budget, options.requests)
                    report.add("peak", row)
                row = _in_own_process(folder, name, dtype, 0, options.requests)
                report.add("growth", row)
                report.write()


if __name__ == "__main__":
    main(sys.argv[1:])
