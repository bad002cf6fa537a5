"""Step 0 of the built-in reranker is fitted from lists, and a small network is measured beside it:
on made lists whose truth is known, and on a few made rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benches import default_head, features
from benches.default_lists import untrained_reader
from benches.feature_columns import COLUMNS, columns_of, read_texts, token_weights
from rerank.inference.fused_head import built_in_head
from rerank.training.examples import TrainingList
from rerank.types import RerankRequest

TRUTH = (4.0, 11.0)


def listed(number: int, chance: np.random.Generator, count: int = 8) -> TrainingList:
    priors = tuple(chance.random(count).tolist())
    texts = tuple(f"text {place} of {number}" for place in range(count))
    targets = tuple(float(place == 0) for place in range(count))
    return TrainingList(f"made-{number}", "which one", "", texts, targets, priors)


def made(number: int, chance: np.random.Generator) -> default_head.Matched:
    """One relevant document, drawn by the softmax of the true weights."""
    each = listed(number, chance)
    priors = np.array(each.priors, dtype=np.float32)
    matches = (0.5 + 0.1 * chance.normal(size=len(priors))).astype(np.float32)
    logits = TRUTH[0] * priors + TRUTH[1] * matches
    shares = np.exp((logits - logits.max()).astype(np.float64))
    good = chance.choice(len(priors), p=shares / shares.sum())
    targets = (np.arange(len(priors)) == good).astype(np.float32)
    return default_head.Matched(each.documents, priors, matches, targets)


def test_the_likeliest_weights_are_those_that_made_the_lists() -> None:
    chance = np.random.default_rng(3)
    lists = [made(number, chance) for number in range(1500)]
    weights = default_head.likeliest(lists, rounds=8)
    low, high = weights.match_interval
    assert low < TRUTH[1] < high and weights.match == pytest.approx(TRUTH[1], abs=1.0)
    low, high = weights.prior_interval
    assert low < TRUTH[0] < high and weights.prior == pytest.approx(TRUTH[0], abs=0.4)

    head = default_head.fitted_head(weights, lists)
    logits = np.concatenate(default_head.logits_of(head, lists))
    labels = np.concatenate([each.targets for each in lists])
    relevance = 1 / (1 + np.exp(-logits))
    # Even odds: as wrong on the relevant as on the others.
    assert (1 - relevance[labels == 1]).mean() == pytest.approx(
        relevance[labels == 0].mean(), abs=1e-3
    )
    guessed = np.concatenate([head.guess_slope * m.matches + head.guess_start for m in lists])
    priors = np.concatenate([each.priors for each in lists])
    assert guessed.mean() == pytest.approx(priors.mean(), abs=1e-4)
    assert guessed.std() == pytest.approx(priors.std(), abs=1e-4)

    fitted = default_head.fit_head(lists[:200], rounds=20)
    # Nothing is gained by having seen a list: two numbers for hundreds of lists.
    own = fitted.qualities
    assert own["head"] == pytest.approx(own["weights fitted to the other four fifths"], abs=0.02)
    assert own["head"] > own["first stage"]
    told = default_head.report(built_in_head(), fitted, lists)
    assert f"| {fitted.head.prior:.4f} | {fitted.weights.prior_interval[0]:.2f} to " in told


def test_only_lists_that_matching_is_believed_of_are_used() -> None:
    chance = np.random.default_rng(1)
    lists = [listed(number, chance) for number in range(6)]
    foreign = TrainingList("ja-1", "東京 tower", "", ("a", "b"), (1.0, 0.0), (0.5, 0.2))
    without = TrainingList("told-1", "which", "only new ones", ("a", "b"), (1.0, 0.0))
    assert len(default_head.usable([*lists, foreign, without])) == 6


def test_matches_are_those_that_serving_computes() -> None:
    torch.set_num_threads(1)
    reader, chance = untrained_reader(), np.random.default_rng(2)
    lists = [listed(number, chance, 3) for number in range(2)]
    for told, each in zip(lists, default_head.matched(lists, reader), strict=True):
        scored = reader.score(RerankRequest(told.query, told.documents, priors=told.priors))
        own = default_head.logits_of(built_in_head(), [each])[0]
        assert np.allclose(own, scored.logits, atol=1e-3)


def test_columns_say_what_query_and_passage_share() -> None:
    torch.set_num_threads(1)
    reader = untrained_reader()
    query = "how to tune a violin"
    passages = ["How to tune a violin at home.", "Bread is baked in an oven.", ""]
    weights = token_weights([query, *passages], reader)
    question = read_texts([query], reader)[0]
    found = columns_of(
        query, question, read_texts(passages, reader), np.array([1.0, 0.5, 0.0]), weights
    )
    assert found.shape == (3, len(COLUMNS)) and np.isfinite(found).all()
    column = {name: found[:, place].tolist() for place, name in enumerate(COLUMNS)}
    for name in ("cosine", "maxsim", "maxsim_weighted", "bm25", "cover", "bigrams", "weakest"):
        assert column[name][0] > column[name][1], name
    assert column["cover"][0] == column["bigrams"][0] == 1.0
    assert column["prior"] == [1.0, 0.5, 0.0] and column["latin"] == [1.0] * 3


def test_the_bench_of_features_reads_once_and_writes_its_table(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "train").mkdir()
    words = ("river", "violin", "garden", "bread", "engine", "castle", "harbour", "market")
    for name, (file, _) in features.SOURCES.items():
        if name not in {"conala", "selqa"}:
            continue
        rows = [
            {"query": f"a {word} in {file}", "positives": [f"All about a {word}, part {number}."]}
            for number, word in enumerate(words * 3)
        ]
        with gzip.open(tmp_path / "train" / f"{file}.jsonl.gz", "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    read = [
        features.kept_sources(tmp_path / "train", tmp_path / "kept", ["conala", "selqa"], 12, 100)
        for _ in range(2)
    ]
    assert [len(each) for each in read[1].values()] == [12, 12]
    for first, again in zip(read[0]["selqa"], read[1]["selqa"], strict=True):
        assert np.array_equal(first.columns, again.columns) and first.positives == 1
    features.table(read[1], 1, 100, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "features.json").read_text())
    assert told["likeliest weights in English"][0]["lists"] == 24
    table = told["all"]
    assert [each["loss"] for each in table] == ["step 0", "listwise", "bce", "mse"]
    assert all(0 <= each["mean"] <= 1 for each in table)
    assert table[0]["queries_minus_step_0"].startswith("+0.0000")
