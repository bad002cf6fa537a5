"""`python -m rerank zelo documentation`: training rows from documentation that is installed.

Docstrings of packages and of the standard library, the language reference and readmes become rows
{"query", "positives", "negatives", "lang", "source"} in --out; beside it (x.jsonl,
x.manifest.json) stands which versions they come from and what was left out. Nothing is imported.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from rerank.errors import BadInput
from rerank.zelo.documentation import MOST_PER_PACKAGE, generate
from rerank.zelo.documentation_files import manifest_path, write_rows
from rerank.zelo.documentation_sources import all_installed, sources_of


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="PACKAGE_OR_FOLDER",
        help="names that pip or import know, modules of the standard library (python: all of it), "
        "folders with .py, .md and .rst; without, everything installed",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .jsonl")
    parser.add_argument(
        "--avoid",
        type=Path,
        metavar="FOLDER",
        help="a BEIR folder, or a folder of such, whose queries and documents must not come up",
    )
    parser.add_argument(
        "--most-per-package",
        type=int,
        default=MOST_PER_PACKAGE,
        metavar="N",
        help=f"rows of one package, drawn by the seed ({MOST_PER_PACKAGE})",
    )
    parser.add_argument(
        "--count", type=int, default=0, metavar="N", help="rows of all, drawn by the seed (0: all)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S")


def run(options: Namespace) -> int:
    if options.out.is_dir():
        raise BadInput(f"{options.out} is a folder: --out names the file to write.")
    sources = sources_of(options.sources) if options.sources else all_installed()
    generated = generate(
        sources,
        most_per_package=options.most_per_package,
        count=options.count,
        avoid=options.avoid,
        seed=options.seed,
    )
    write_rows(options.out, generated, seed=options.seed, command=sys.argv)
    left_out = ", ".join(f"{reason} {n:,}" for reason, n in generated.removed.items())
    sys.stdout.write(
        f"{len(generated.rows):,} rows of {len(generated.packages)} packages in {options.out}, "
        f"their origin in {manifest_path(options.out)}.\nLeft out: {left_out or 'nothing'}.\n"
    )
    return 0
