"""Rows become lists with hard negatives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rerank.errors import BadInput
from rerank.types import FloatArray
from rerank.zelo.mining import Mining, Row, chosen, corpus_of, mine, read_rows

WORDS = ["river", "violin", "garden", "bread", "engine", "castle"]
ROWS = [Row(f"the {word}", (f"all about a {word}",), (f"no {word} here",)) for word in WORDS]


def embed(texts: Sequence[str]) -> FloatArray:
    """A unit vector by the words a text holds."""
    counts = np.array([[1.0 + text.count(word) for word in WORDS] for text in texts])
    return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def test_each_query_gets_its_positive_and_negatives_in_first_stage_order() -> None:
    mining = Mining(near=2, near_band=3, far=1, held_every=0)
    found = mine(corpus_of(ROWS, mining, "rows"), embed, mining, "rows").training
    assert len(found) == len(ROWS)
    for each in found:
        good = [text for text, target in zip(each.documents, each.targets, strict=True) if target]
        assert good == [f"all about a {each.query.removeprefix('the ')}"]
        assert each.targets.count(0.0) == 3
        assert each.priors == tuple(sorted(each.priors or (), reverse=True))


def test_copies_of_a_positive_are_no_negatives_and_seeds_draw() -> None:
    long = "one two three four five six seven eight nine ten"
    texts = [long, f"{long} eleven", "quite another text", "and a third one"]
    assert 1 not in chosen([0, 1, 2, 3], [0], texts, Mining(), "q")
    assert chosen([1, 2], [0], texts, Mining(), "q") == []
    many = [f"text number {n}" for n in range(40)]
    draws = {tuple(chosen(range(40), [5], many, Mining(seed=s), "q")) for s in range(5)}
    assert len(draws) > 1 and all(5 in draw and len(draw) == 8 for draw in draws)


def test_rows_that_are_none_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"query": "q", "positives": []}) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="Line 1"):
        read_rows(file)
