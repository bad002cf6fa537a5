"""The tables [data] and [mining] of a recipe: where queries and candidates come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import BadRecipe
from rerank.evaluation.first_stage import FirstStage
from rerank.tables import TEXT, Check, checked, number, one_of, whole

from .mining import Mining, name_of


@dataclass(frozen=True)
class Data:
    """Where queries and candidates come from: a candidates file, a BEIR folder, or files of rows
    (mining.py), from which candidates and human judgments are mined.

    `split`: only the queries judged in that folder's qrels/<split>.tsv; "" for all of them.
    `queries`: at most so many, drawn by the recipe's seed; 0 for all. `depth`: candidates a query.
    `qrels`: human judgments, for judges of that kind and for the second pass.
    """

    candidates: Path | None = None
    folder: Path | None = None
    rows: tuple[Path, ...] = ()
    split: str = ""
    queries: int = 0
    depth: int = 100
    first_stage: FirstStage = "hybrid"
    dense_weight: float = 0.7
    language: str = "en"
    embedder: str = ""
    instruction: str = ""
    qrels: Path | None = None


PATH = Check("a path", lambda value: isinstance(value, str) and bool(value.strip()))
ANY_TEXT = Check("a text", lambda value: isinstance(value, str))
PATHS = Check(
    "a list of paths",
    lambda value: isinstance(value, list) and all(isinstance(each, str) and each for each in value),
)
_DATA_CHECKS = {
    "candidates": PATH,
    "folder": PATH,
    "rows": PATHS,
    "split": TEXT,
    "queries": whole(0, 10**9),
    "depth": whole(1, 1000),
    "first_stage": one_of(("bm25", "dense", "hybrid")),
    "dense_weight": number(0, 1),
    "language": TEXT,
    "embedder": ANY_TEXT,
    "instruction": ANY_TEXT,
    "qrels": PATH,
}
_MINING_CHECKS = {
    "passages": whole(2, 10**7),
    "queries": whole(1, 10**7),
    "near": whole(0, 1000),
    "near_band": whole(1, 1000),
    "far": whole(0, 1000),
    "far_band": whole(1, 1000),
}


def read_data(where: str, table: Mapping[str, Any], folder: Path) -> Data:
    """Raises BadRecipe."""
    values = checked(where, table, _DATA_CHECKS, ())
    if sum(key in values for key in ("candidates", "folder", "rows")) != 1:
        raise BadRecipe(f"{where} must name one of candidates, folder and rows.")
    if "rows" in values:
        return _rows(where, values, folder)
    unused = [k for k in values if k not in {"candidates", "qrels"}]
    if "candidates" in values and unused:
        raise BadRecipe(f"{where}: {unused[0]} says how candidates are found, but they are given.")
    for key in ("candidates", "folder", "qrels"):
        if key in values:
            wanted = "folder" if key == "folder" else "file"
            values[key] = existing(where, key, values[key], folder, wanted)
    data = Data(**values)
    if data.qrels is None and data.folder is not None and data.split:
        own = data.folder / "qrels" / f"{data.split}.tsv"
        if not own.is_file():
            raise BadRecipe(f"{where}: split names {own}, which does not exist.")
        return Data(**{**values, "qrels": own})
    return data


def _rows(where: str, values: dict[str, Any], folder: Path) -> Data:
    for key in ("split", "queries", "qrels"):
        if key in values:
            raise BadRecipe(
                f"{where}: {key} is for judged folders; rows bring their judgments, and [mining] "
                "says how many of them are taken."
            )
    rows = tuple(existing(where, "rows", each, folder, "file") for each in values["rows"])
    if not rows or len({name_of(each) for each in rows}) < len(rows):
        raise BadRecipe(f"{where}: rows must name one file or more, and no two of one name.")
    return Data(**{**values, "rows": rows})


def read_mining(where: str, values: Mapping[str, Any], data: Data) -> Mining:
    """How [mining], [data] and the seed say rows are mined. Raises BadRecipe."""
    table = values.get("mining", {})
    own = checked(f"{where}, [mining]", table, _MINING_CHECKS, ())
    if table and not data.rows:
        raise BadRecipe(f"{where}: [mining] needs rows in [data].")
    mining = Mining(
        **own,
        dense_weight=data.dense_weight,
        language=data.language,
        held_every=0,
        seed=values.get("seed", 0),
    )
    if not mining.near + mining.far or mining.near_band > mining.far_band:
        raise BadRecipe(
            f"{where}, [mining]: near and far must draw one negative or more, and far_band lies "
            "behind near_band."
        )
    return mining


def existing(where: str, key: str, value: str, folder: Path, wanted: str) -> Path:
    """Of a path that starts at `folder`; `wanted`: "file", "folder" or "directory". Raises
    BadRecipe."""
    path = folder / Path(value).expanduser()
    if not path.exists():
        raise BadRecipe(f"{where}: {key} names {path}, which does not exist.")
    if path.is_dir() != (wanted != "file"):
        raise BadRecipe(f"{where}: {key} names {path}, which is no {wanted}.")
    return path
