"""`python -m rerank evaluate`: a judged folder before and after a reranker."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rerank.commands.numbers import at_least
from rerank.evaluation.beir import read_folder
from rerank.evaluation.evaluate import MEASURES, Settings, evaluate_folder

_COLUMNS = [*MEASURES.values(), "judged@10", "queries"]
_UNITS = {"index": " documents", "embed": " documents", "rerank": " queries"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        help="in BEIR format: corpus.jsonl[.gz], queries.jsonl[.gz], qrels/test.tsv",
    )
    parser.add_argument("--first-stage", choices=["bm25", "dense", "hybrid"], default="hybrid")
    parser.add_argument("--model", default="", help="hub name or directory (default: built in)")
    parser.add_argument("--embedder", default="", help="likewise, of the dense leg")
    parser.add_argument("--depth", type=at_least(1), default=100, help="documents reranked (100)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N queries")
    parser.add_argument("--language", default="en", help="of the texts, for their terms (en)")
    parser.add_argument(
        "--dense-weight",
        type=float,
        help="of meaning in the hybrid (0.7; 0.3 for the built-in embedder beside English)",
    )
    parser.add_argument("--instruction")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="float32, bfloat16, ... (default: what suits the device)")
    parser.add_argument("--json", action="store_true")


def run(options: Namespace) -> int:
    weight = options.dense_weight
    if weight is None:
        # The built-in embedder has read English only; in other languages words must lead.
        weight = 0.3 if options.language != "en" and not options.embedder else 0.7
    settings = Settings(
        options.first_stage, options.depth, weight, options.language, options.instruction
    )
    data = read_folder(options.folder).limited(options.limit)
    from rerank.ranked import load_embedder, load_reranker

    reranker = load_reranker(options.model, options.device, options.dtype)
    embedder = None
    if settings.first_stage != "bm25":
        embedder = load_embedder(options.embedder, options.device)
    with _Bars() as bars:
        report = evaluate_folder(data, reranker, embedder, settings, bars.show)
    report = {"folder": options.folder.name, **report}
    if options.json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(_table(report))
    return 0


def _table(report: dict[str, Any]) -> str:
    names = list(report["systems"])
    width = max(map(len, names))
    lines = [
        f"{report['folder']}: {report['queries']:,} queries, {report['documents']:,} documents",
        " " * width + "".join(f"{column:>12}" for column in _COLUMNS),
    ]
    for name, figures in report["systems"].items():
        cells = [
            f"{figures[column]:>12,}" if column == "queries" else f"{figures[column]:>12.4f}"
            for column in _COLUMNS
        ]
        lines.append(f"{name:<{width}}{''.join(cells)}")
    comparison = report["comparison"]
    lines += ["", f"{comparison['after']} minus {comparison['before']}, with 95 % interval and p:"]
    for measure in MEASURES.values():
        found = comparison[measure]
        lines.append(
            f"{measure:<10}  {found['difference']:+.4f}  "
            f"[{found['low']:+.4f}, {found['high']:+.4f}]  p = {found['p_value']:.4f}"
        )
    model = report["reranker"]
    lines += [
        "",
        f"{model['name']} ({model['device']}, {model['dtype']}): {report['pairs']:,} pairs in "
        f"{report['rerank_seconds']:,.1f} s; {report['truncated']:,} documents were cut.",
        *report["notes"],
    ]
    return "\n".join(lines) + "\n"


class _Bars:
    """A progress bar per stage on stderr, silent where nobody watches."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def show(self, stage: str, done: int, total: int) -> None:
        if stage not in self._bars:
            self._bars[stage] = tqdm(
                total=total, desc=stage, unit=_UNITS.get(stage, ""), disable=None
            )
        self._bars[stage].update(done - self._bars[stage].n)
