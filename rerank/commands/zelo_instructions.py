"""`python -m rerank zelo instructions`: training data whose labels follow from exact rules.

Writes queries with instructions and documents to --output and their targets beside it
(x.jsonl, x.scores.jsonl), ready for training a pointwise model.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from rerank.zelo.instructions.generate import (
    DEFAULT_ROWS_SHARE,
    SPLITS,
    Plan,
    scores_path,
    write_training,
)
from rerank.zelo.instructions.wrapped import read_rows


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--count", type=int, default=1000, metavar="N", help="contrasts, each four queries (1000)"
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="what the wordings and domains are for"
    )


def add_source_arguments(parser: ArgumentParser) -> None:
    """What `zelo following` asks for too."""
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help='lines {"query", "positives", "negatives", "source", "lang"}, .jsonl or .jsonl.gz; '
        "without, all documents are composed",
    )
    parser.add_argument(
        "--rows-share",
        type=float,
        default=DEFAULT_ROWS_SHARE,
        metavar="SHARE",
        help=f"of the contrasts made from --rows ({DEFAULT_ROWS_SHARE})",
    )
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="default: all")
    parser.add_argument("--seed", type=int, default=0, metavar="S")


def plan_of(options: Namespace) -> Plan:
    """Raises BadInput."""
    return Plan(
        options.count, options.seed, options.split, options.rows_share, tuple(options.kinds)
    )


def run(options: Namespace) -> int:
    outcome = write_training(options.output, plan_of(options), read_rows(options.rows))
    sys.stdout.write(
        f"{' '.join(outcome.sentences)}\n"
        f"{outcome.records:,} queries in {options.output}, targets in "
        f"{scores_path(options.output)}.\n"
    )
    return 0
