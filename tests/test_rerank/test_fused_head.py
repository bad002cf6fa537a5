"""The file with the six numbers of the untrained built-in reranker."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from rerank.errors import ModelNotFound, WrongModel
from rerank.inference.fingerprint import fingerprint
from rerank.inference.fused_files import untrained
from rerank.inference.fused_head import (
    BUILT_IN_HEAD,
    Head,
    built_in_head,
    read_head,
    write_head,
)
from rerank.inference.models import embedder_facts

HEAD = Head(5.05073, 6.73256, -6.963, 1.755, -0.4076, 0.48274)


def test_the_untrained_reranker_has_the_head_of_the_package() -> None:
    assert untrained().head == built_in_head() == read_head(BUILT_IN_HEAD)
    assert built_in_head().prior > 0 and built_in_head().match > 0


def test_the_shipped_head_says_what_it_was_made_from() -> None:
    made = json.loads(BUILT_IN_HEAD.read_text(encoding="utf-8"))["made"]
    assert made["command"] == "python -m benches.default_model FOLDER --ship"
    for key in ("lists", "lists sha256", "files sha256", "seed", "95 % intervals", "number format"):
        assert key in made, key
    assert made["lists in all"] == sum(made["lists"].values())
    assert all(len(digest) == 64 for digest in made["files sha256"].values())
    # It was fitted to the weights that are installed.
    assert made["base"]["weights"] == fingerprint(embedder_facts("").directory)
    for name, (low, high) in made["95 % intervals"].items():
        assert low < asdict(built_in_head())[name] < high


def test_a_written_head_is_read_again_rounded_and_two_writings_are_the_same(
    tmp_path: Path,
) -> None:
    file = tmp_path / "built_in" / "head.json"
    written = write_head(file, HEAD, {"seed": 0})
    first = file.read_bytes()
    assert read_head(file) == written
    assert written.prior == 5.0507 and written.usual_match == 0.4827
    assert json.loads(file.read_text(encoding="utf-8"))["made"] == {"seed": 0}
    assert write_head(file, written, {"seed": 0}) == written
    assert file.read_bytes() == first
    assert [each.name for each in file.parent.iterdir()] == ["head.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda head: "{", "is not JSON"),
        (lambda head: [head], "should hold under 'head' the numbers prior, match"),
        (lambda head: {"head": [1, 2]}, "should hold under 'head'"),
        (lambda head: {"head": {k: v for k, v in head.items() if k != "bias"}}, "should hold"),
        (lambda head: {"head": {**head, "slope": 1.0}}, "should hold"),
        (lambda head: {"head": {**head, "bias": "-7"}}, "'bias' is no number"),
        (lambda head: {"head": {**head, "bias": float("nan")}}, "'bias' is no number"),
        (lambda head: {"head": {**head, "match": True}}, "'match' is no number"),
        (lambda head: {"head": {**head, "match": 10**400}}, "'match' is no number"),
    ],
)
def test_a_broken_head_is_told_with_what_to_do(tmp_path: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "head.json"
    broken = change(asdict(HEAD))
    file.write_text(broken if isinstance(broken, str) else json.dumps(broken), encoding="utf-8")
    with pytest.raises(WrongModel, match=said) as told:
        read_head(file)
    assert "Copy it again" in str(told.value)


def test_a_missing_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"head\.json cannot be read \(No such file"):
        read_head(tmp_path / "head.json")
    (tmp_path / "head.json").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongModel, match="is not JSON"):
        read_head(tmp_path / "head.json")
