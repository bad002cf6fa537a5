"""The small world with tiny models, so that the whole pipeline takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerank.zelo.recipe import Recipe, read_recipe
from rerank.zelo.small_world import write_small_world

from ..tiny import save_headless

TINY = """\
name = "tiny"
device = "cpu"

[data]
folder = "market"
split = "train"
depth = 8
first_stage = "bm25"

[[judges]]
kind = "qrels"
unjudged = "irrelevant"

[pairs]
degree = 4
gold = 3
gold_bridge_degree = 2

[pairwise]
base = "base"
batch = 8
rate = 1e-3

[pointwise]
base = "base"
batch = 2
rate = 1e-3
save_every = 1

[second_pass]
rounds = 1
worst_rank = 1

[evaluate]
folders = ["market"]
"""


def tiny_world(directory: Path, recipe: str = TINY, queries: int = 15) -> Path:
    """A market, an untrained body `base`, and a recipe, whose path is returned."""
    path = write_small_world(directory, queries=queries)
    save_headless(directory / "base")
    path.write_text(recipe)
    return path


def tiny_recipe(directory: Path, recipe: str = TINY, queries: int = 15) -> Recipe:
    return read_recipe(tiny_world(directory, recipe, queries))


def without(recipe: str, *tables: str) -> str:
    """The recipe without these tables."""
    parts = recipe.split("\n\n")
    return "\n\n".join(
        part for part in parts if not part.startswith(tuple(f"[{t}]" for t in tables))
    )


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]
