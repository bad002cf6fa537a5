"""The whole pipeline on a small invented world, on a CPU in about two minutes.

Writes the world and its recipe into --directory, then runs it; the files left there are those of
any run (docs/zelo.md).
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rerank.commands.zelo_run import run_and_show
from rerank.zelo.recipe import read_recipe
from rerank.zelo.small_world import write_small_world


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--directory", type=Path, default=Path("zelo-small"), help="(zelo-small)")


def run(options: Namespace) -> int:
    recipe = write_small_world(options.directory)
    return run_and_show(read_recipe(recipe), options.directory / "run", is_approved=False)
