"""A small invented world to try the pipeline on: a flea market's notices, and a recipe.

A notice offers a thing of some material and says in one of several ways that it can still be had,
or no longer can. Whoever asks for a thing wants one that can be had, which no first stage knows.
Every text follows from the rules below.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rerank.errors import BadStage

MATERIALS = ("oak", "steel", "clay", "copper", "wicker", "glass", "pine", "brass")
THINGS = ("bowl", "lamp", "chair", "kettle", "clock", "mirror", "basket", "ladder", "tray", "box")
OPEN = ("Still for sale.", "Waiting for a buyer.", "Come and take it home.")
GONE = ("Sold on {day}.", "Reserved for a friend.", "Withdrawn.")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
# How many notices of each material and thing can be had, and how many no longer can.
EACH = 2
FITTING, NEAR = 2, 1

RECIPE = """\
# The whole pipeline on the notices beside this file. docs/zelo.md explains each key.
name = "small"
device = "cpu"

[data]
folder = "market"
split = "train"
depth = 12

[[judges]]
kind = "qrels"                # the rules of the world themselves
unjudged = "irrelevant"

[pairs]
degree = 4
gold = 16
gold_bridge_degree = 2

[pairwise]
base = ""                     # the body of the built-in embedder
epochs = 2
batch = 8
rate = 1e-4
head_rate = 1e-3
freeze_embeddings = true

[pointwise]
base = ""
loss = "mse"
epochs = 3
batch = 2
rate = 1e-4
head_rate = 1e-3
freeze_embeddings = true

[second_pass]
rounds = 1
worst_rank = 8

[evaluate]
folders = ["market"]
"""


@dataclass(frozen=True)
class Notice:
    id: str
    material: str
    thing: str
    is_open: bool
    text: str


def write_small_world(directory: Path, *, queries: int = 60, seed: int = 0) -> Path:
    """`directory/market`, a judged folder of which a third of the `queries` is for testing, and
    `directory/recipe.toml`, which is returned. Raises BadStage when they cannot be written."""
    chance = random.Random(seed)
    notices = list(_notices(chance))
    wanted = [(material, thing) for material in MATERIALS for thing in THINGS]
    chance.shuffle(wanted)
    asked = {f"q{at}": pair for at, pair in enumerate(wanted[:queries])}
    tested = set(list(asked)[: len(asked) // 3])
    market = directory / "market"
    try:
        (market / "qrels").mkdir(parents=True, exist_ok=True)
        _write_lines(market / "corpus.jsonl", ({"_id": n.id, "text": n.text} for n in notices))
        texts = {name: f"{material} {thing} to buy" for name, (material, thing) in asked.items()}
        _write_lines(
            market / "queries.jsonl", ({"_id": name, "text": text} for name, text in texts.items())
        )
        for split in ("train", "test"):
            kept = {name: asked[name] for name in asked if (name in tested) == (split == "test")}
            rows = ["query-id\tcorpus-id\tscore", *_qrels(kept, notices)]
            (market / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        recipe = directory / "recipe.toml"
        recipe.write_text(RECIPE, encoding="utf-8")
    except OSError as error:
        raise BadStage(f"{directory} cannot be written: {error.strerror or error}.") from error
    return recipe


def _notices(chance: random.Random) -> Iterator[Notice]:
    number = 0
    for material in MATERIALS:
        for thing in THINGS:
            for is_open in (True, False) * EACH:
                said = chance.choice(OPEN if is_open else GONE)
                said = said.format(day=chance.choice(DAYS))
                text = f"{material} {thing}, {chance.randint(2, 90)} coins. {said}"
                yield Notice(f"n{number}", material, thing, is_open, text)
                number += 1


def _qrels(asked: Mapping[str, tuple[str, str]], notices: Iterable[Notice]) -> Iterator[str]:
    """Both fit: 2; the thing of another material: 1; whatever can no longer be had: 0."""
    known = list(notices)
    for name, (material, thing) in asked.items():
        for notice in known:
            if notice.is_open and notice.thing == thing:
                grade = FITTING if notice.material == material else NEAR
                yield f"{name}\t{notice.id}\t{grade}"


def _write_lines(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
