"""Recipes of the pipeline: the documented one is read, wrong ones are named in one sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rerank.errors import BadRecipe
from rerank.training.settings import Settings
from rerank.zelo.mining import Mining
from rerank.zelo.recipe import (
    Fit,
    PairSettings,
    SecondPass,
    Training,
    read_recipe,
    recipe_of,
)
from rerank.zelo.recipe_data import Data
from rerank.zelo.small_world import write_small_world

from .small import TINY, tiny_world

DOCS = Path(__file__).resolve().parents[3] / "docs" / "zelo.md"


def test_the_recipe_in_the_docs_can_be_read(tmp_path: Path) -> None:
    text = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert text is not None
    (tmp_path / "recipe.toml").write_text(text[1])
    for folder in ("legal", "legal-held-out"):
        (tmp_path / folder / "qrels").mkdir(parents=True)
        (tmp_path / folder / "qrels" / "train.tsv").touch()
    (tmp_path / "people.jsonl").touch()
    (tmp_path / "pairwise-2025").mkdir()
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert [judge.kind for judge in recipe.judges] == [
        "openai",
        "anthropic",
        "gemini",
        "qrels",
        "people",
        "model",
    ]
    # What the page calls a default is one.
    assert recipe.pairwise == Training(settings=Settings("pair_bce"))
    assert recipe.pointwise == Training(settings=Settings())
    assert (recipe.pairs, recipe.fit) == (PairSettings(), Fit())
    assert recipe.second_pass == SecondPass(rounds=1)
    data = Data(folder=tmp_path / "legal", split="train", queries=5000)
    assert recipe.data == replace(data, qrels=tmp_path / "legal" / "qrels" / "train.tsv")


def test_the_documented_rows_can_be_read_and_have_the_defaults(tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    (tmp_path / "recipe.toml").write_text(text)
    for name in ("faq.jsonl.gz", "tickets.jsonl"):
        (tmp_path / name).touch()
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe.mining == Mining(held_every=0)
    assert recipe.data == Data(rows=(tmp_path / "faq.jsonl.gz", tmp_path / "tickets.jsonl"))


def test_the_small_worlds_own_recipe_can_be_read(tmp_path: Path) -> None:
    recipe = read_recipe(write_small_world(tmp_path))
    assert recipe.name == "small" and recipe.data.qrels == tmp_path / "market/qrels/train.tsv"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("degree = 4", "degre = 4", r"\[pairs\]: the key degre is unknown; did you mean degree\?"),
        ("degree = 4", "degree = 1", r"\[pairs\]: degree must be a whole number from 2 to 1000, "),
        ('kind = "qrels"', 'kind = "oracle"', "judge 1: kind must be one of openai, .*'oracle'"),
        ('kind = "qrels"', 'kind = "people"', "judge 1: the key unjudged is unknown"),
        ('folder = "market"\n', "", r"\[data\] must name one of candidates, folder and rows"),
        ('folder = "market"', 'folder = "bazaar"', "folder names .*bazaar, which does not exist"),
        ('split = "train"', 'split = "dev"', "split names .*dev.tsv, which does not exist"),
        ('base = "base"', 'base = "./none"', r"\[pairwise\]: base names .*none, which does not"),
        ("rate = 1e-3", "rate = 0", r"\[pairwise\]: The setting rate is above 0"),
        ("rate = 1e-3", "speed = 1", r"\[pairwise\]: There is no setting called 'speed'"),
        ("save_every = 1", "seed = 1", r"\[pointwise\]: write seeds, a list, instead of seed"),
        ("save_every = 1", "seeds = [1, 1]", "seeds must be a list of one or more different"),
        ("save_every = 1", 'loss = "pair_bce"', "loss must be mse or bce or listwise"),
        ('folders = ["market"]', 'folders = "market"', "folders must be a list of paths"),
        ("rounds = 1", "rounds = true", r"\[second_pass\]: rounds must be a whole number"),
        ('name = "tiny"', "name = tiny", "is not TOML"),
        ('name = "tiny"', 'names = "tiny"', "the key names is unknown; did you mean name"),
    ],
)
def test_a_wrong_recipe_is_named_in_one_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    path = tiny_world(tmp_path, queries=6)
    assert old in TINY
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(BadRecipe, match=sentence) as failure:
        read_recipe(path)
    assert "\n" not in str(failure.value)


def test_what_needs_a_reranker_or_judgments_says_so(tmp_path: Path) -> None:
    (tmp_path / "people.jsonl").touch()
    (tmp_path / "candidates.jsonl").touch()
    table = {
        "data": {"candidates": "candidates.jsonl"},
        "judges": [{"kind": "people", "file": "people.jsonl"}],
    }
    assert recipe_of(table, tmp_path).pointwise is None
    with pytest.raises(BadRecipe, match=r"no \[pointwise\] table"):
        recipe_of({**table, "second_pass": {"rounds": 1}}, tmp_path)
    with pytest.raises(BadRecipe, match="needs human judgments"):
        recipe_of({**table, "pointwise": {}, "second_pass": {"rounds": 1}}, tmp_path)
    with pytest.raises(BadRecipe, match="names no judge"):
        recipe_of({**table, "judges": []}, tmp_path)
    with pytest.raises(BadRecipe, match="depth says how candidates are found, but they are given"):
        recipe_of({**table, "data": {**table["data"], "depth": 5}}, tmp_path)  # type: ignore[dict-item]
    with pytest.raises(BadRecipe, match="judge 1: the key file is missing"):
        recipe_of({**table, "judges": [{"kind": "qrels"}]}, tmp_path)


def test_rows_bring_their_judgments_and_say_how_they_are_mined(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "b.jsonl"):
        (tmp_path / name).touch()
    table: dict[str, Any] = {
        "seed": 7,
        "data": {"rows": ["a.jsonl", "b.jsonl.gz"], "dense_weight": 0.5},
        "mining": {"near": 2},
        "judges": [{"kind": "qrels", "unjudged": "irrelevant"}],
        "pointwise": {},
        "second_pass": {"rounds": 1},
    }
    recipe = recipe_of(table, tmp_path)
    assert recipe.mining == Mining(near=2, dense_weight=0.5, held_every=0, seed=7)
    assert recipe.judges[0].path is None
    filled = recipe.with_qrels(tmp_path / "mined.tsv")
    assert filled.judges[0].path == filled.data.qrels == tmp_path / "mined.tsv"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data": {"rows": ["a.jsonl"], "folder": "."}}, "one of candidates, folder and rows"),
        ({"data": {"rows": []}}, "rows must name one file or more"),
        ({"data": {"rows": ["b.jsonl", "b.jsonl.gz"]}}, "no two of one name"),
        ({"data": {"rows": ["c.jsonl"]}}, "rows names .*c.jsonl, which does not exist"),
        ({"data": {"rows": ["a.jsonl"], "queries": 5}}, "queries is for judged folders"),
        ({"mining": {"near": 0, "far": 0}}, "near and far must draw one negative or more"),
        ({"mining": {"near_band": 80}}, "far_band lies behind near_band"),
        ({"data": {"candidates": "a.jsonl"}}, r"\[mining\] needs rows"),
    ]
    for change, sentence in wrong:
        with pytest.raises(BadRecipe, match=sentence):
            recipe_of({**table, **change}, tmp_path)


def test_a_key_in_a_recipe_is_never_repeated(tmp_path: Path) -> None:
    table = {
        "data": {"folder": "."},
        "judges": [{"kind": "openai", "model": "m", "key_env": "sk-secret value"}],
    }
    with pytest.raises(BadRecipe, match="name of an environment variable") as failure:
        recipe_of(table, tmp_path)
    assert "secret" not in str(failure.value)
