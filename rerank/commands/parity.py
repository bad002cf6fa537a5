"""`python -m rerank parity`: may this backend serve?"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tqdm import tqdm

from rerank.parity.gate import run_parity
from rerank.parity.probes import read_probes
from rerank.parity.report import Check


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the candidate: hub name or directory")
    parser.add_argument(
        "--against", help="the reference: hub name or directory (without: only what needs none)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="of the candidate (default: what suits the device)")
    parser.add_argument(
        "--against-dtype", default="float32", help="of the reference (default: float32)"
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help='own probes: lines {"query": "...", "documents": ["..."], "grades": [0]}, grades '
        "optional",
    )
    parser.add_argument("--least-tau", type=float, metavar="TAU", help="Kendall tau asked for")
    parser.add_argument("--json", action="store_true")


def run(options: Namespace) -> int:
    """0 when the candidate passed, else 1."""
    probes = read_probes(options.pairs) if options.pairs else None
    # torch takes seconds to import; a wrong --pairs file is said at once.
    from rerank.ranked import load_reranker

    candidate = load_reranker(options.model, options.device, options.dtype)
    reference = None
    if options.against is not None:
        reference = load_reranker(options.against, options.device, options.against_dtype)
    with tqdm(desc="checks", unit="", disable=None, leave=False) as bar:

        def show(check: Check) -> None:
            bar.set_postfix_str(check.name, refresh=False)
            bar.update()

        report = run_parity(
            candidate, reference, probes=probes, least_tau=options.least_tau, on_check=show
        )
    if options.json:
        sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(report.as_text() + "\n")
    return 0 if report.passed else 1
