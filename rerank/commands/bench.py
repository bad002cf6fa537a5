"""`python -m rerank bench`: how fast a model is on this machine."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict

from rerank.commands.numbers import at_least
from rerank.timing import Timing, Workload, time_requests


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="hub name or directory (default: built in)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="float32, bfloat16, ... (default: what suits the device)")
    parser.add_argument("--candidates", type=at_least(1), default=100, metavar="N", help="(100)")
    parser.add_argument(
        "--tokens",
        type=_range,
        default=(20, 300),
        metavar="A-B",
        help="of each document, evenly spread; one number for all alike (20-300)",
    )
    parser.add_argument("--requests", type=at_least(1), default=10, metavar="N", help="timed (10)")
    parser.add_argument("--instruction")
    parser.add_argument("--json", action="store_true")


def run(options: Namespace) -> int:
    from rerank.ranked import load_reranker

    reranker = load_reranker(options.model, options.device, options.dtype)
    low, high = options.tokens
    workload = Workload(options.candidates, low, high, options.instruction)
    timing = time_requests(reranker, workload, options.requests)
    if options.json:
        sys.stdout.write(json.dumps(asdict(timing), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(_table(timing))
    return 0


def _table(timing: Timing) -> str:
    rows = [
        ("candidates", f"{timing.candidates:,}"),
        ("tokens of a request", f"{timing.tokens:,}"),
        ("requests", f"{timing.requests:,}"),
        ("ms p50", f"{timing.ms_p50:,.1f}"),
        ("ms p95", f"{timing.ms_p95:,.1f}"),
        ("  of these to tokenise", f"{timing.tokenize_ms_p50:,.1f}"),
        ("  of these in the model", f"{timing.inference_ms_p50:,.1f}"),
        ("pairs/s", f"{timing.pairs_per_second:,.1f}"),
        ("tokens/s", f"{timing.tokens_per_second:,.0f}"),
    ]
    if timing.batches is not None and timing.batch_fill is not None:
        rows.append(("batches of a request", f"{timing.batches:,}"))
        rows.append(("  filled, when padded", f"{timing.batch_fill:.0%}"))
    rows.append(("peak memory, MiB", f"{timing.peak_memory_mib:,.0f}"))
    if timing.peak_device_memory_mib is not None:
        rows.append(("peak device memory, MiB", f"{timing.peak_device_memory_mib:,.0f}"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{timing.model} ({timing.device}, {timing.dtype})"]
    lines += [f"{name:<{width}}  {value:>12}" for name, value in rows]
    return "\n".join(lines) + "\n"


def _range(raw: str) -> tuple[int, int]:
    low, _, high = raw.partition("-")
    try:
        found = int(low), int(high or low)
    except ValueError:
        raise ArgumentTypeError(f"{raw!r} is no number and no range such as 20-300") from None
    if not 1 <= found[0] <= found[1]:
        raise ArgumentTypeError(f"{raw} is no range from at least 1 upwards")
    return found
