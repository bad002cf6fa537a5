"""One scale for all queries: offsets by hand and against known truth, and the targets they give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from rerank.errors import BadPreferences
from rerank.zelo.links import BRADLEY_TERRY, THURSTONE, Link
from rerank.zelo.offsets import Bridges, fit_offsets, targets
from rerank.zelo.pairing import random_cycles
from rerank.zelo.scoring import Preferences, fit_scores


def test_two_queries_by_hand() -> None:
    # Without margin and with a vanishing prior the offsets differ by the logit of 0.8, ln 4.
    bridges = Bridges(np.array([[0, 1]]), np.array([0.8]), np.array([0.0]))
    found = fit_offsets(2, bridges, link=BRADLEY_TERRY, ridge=1e-6)
    assert found.values == pytest.approx([np.log(4) / 2, -np.log(4) / 2], abs=1e-3)
    # A margin that explains the preference leaves nothing to offset.
    explained = Bridges(np.array([[0, 1]]), np.array([0.8]), np.array([np.log(4)]))
    assert fit_offsets(2, explained, link=BRADLEY_TERRY).values == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("link", [THURSTONE, BRADLEY_TERRY], ids=lambda link: link.name)
def test_offsets_equal_scores_where_every_query_has_one_document(link: Link) -> None:
    random = np.random.default_rng(3)
    pairs = random_cycles(30, 6, 3)
    values = random.random(len(pairs))
    scores = fit_scores([Preferences(30, pairs, values)], link=link, ridge=0.5)[0].scores
    bridges = Bridges(pairs, values, np.zeros(len(pairs)))
    assert np.allclose(fit_offsets(30, bridges, link=link, ridge=0.5).values, scores, atol=1e-5)


def test_nothing_is_left_to_gain_at_the_offsets_found() -> None:
    random = np.random.default_rng(5)
    pairs = random_cycles(8, 4, 5)
    values, margins = random.random(len(pairs)), random.normal(size=len(pairs))
    weights = random.random(len(pairs)) * 3
    found = fit_offsets(8, Bridges(pairs, values, margins, weights), ridge=0.3)

    def slow(offsets: np.ndarray) -> float:
        x = margins + offsets[pairs[:, 0]] - offsets[pairs[:, 1]]
        win, lose = THURSTONE.logs(x)
        data = -(weights * (values * win + (1 - values) * lose)).sum()
        return float(data + 0.15 * offsets @ offsets)

    assert np.abs(approx_fprime(found.values, slow, 1e-6)).max() < 1e-4


def test_easy_and_hopeless_queries_are_told_apart() -> None:
    random = np.random.default_rng(1)
    queries, documents = 60, 30
    offsets = random.normal(size=queries)
    offsets -= offsets.mean()
    scores = random.normal(size=(queries, documents))
    scores -= scores.mean(axis=1, keepdims=True)
    pairs = random_cycles(queries, 16, 1)
    chosen = random.integers(documents, size=pairs.shape)
    margins = scores[pairs[:, 0], chosen[:, 0]] - scores[pairs[:, 1], chosen[:, 1]]
    chance = THURSTONE.probability(margins + offsets[pairs[:, 0]] - offsets[pairs[:, 1]])
    votes = random.binomial(3, chance) / 3
    found = fit_offsets(queries, Bridges(pairs, votes, margins, np.full(len(pairs), 3.0)))
    assert np.corrcoef(found.values, offsets)[0, 1] > 0.95
    assert found.components == 1
    errors = (found.values - offsets) / found.deviations
    assert 0.7 < errors.std() < 1.4

    # Absolute relevance is what the offsets bring back: without them every query's mean is alike.
    with_offsets = targets(list(scores), found.values)
    without = targets(list(scores), np.zeros(queries))
    wanted = np.concatenate(targets(list(scores), offsets))
    assert np.corrcoef(np.concatenate(with_offsets), wanted)[0, 1] > 0.97
    assert np.corrcoef(np.concatenate(without), wanted)[0, 1] < 0.8


def test_without_bridges_nothing_moves() -> None:
    none = Bridges(np.zeros((0, 2), dtype=np.int64), np.zeros(0), np.zeros(0))
    found = fit_offsets(3, none)
    assert found.values.tolist() == [0.0, 0.0, 0.0]
    assert found.components == 3
    assert found.deviations.tolist() == [1.0, 1.0, 1.0]
    assert fit_offsets(0, none).values.shape == (0,)


@pytest.mark.parametrize(
    ("bridges", "words"),
    [
        (Bridges(np.array([[0, 5]]), np.array([0.5]), np.array([0.0])), "outside the 2"),
        (Bridges(np.array([[0, 1]]), np.array([1.5]), np.array([0.0])), "outside 0 to 1"),
        (Bridges(np.array([[0, 1]]), np.array([0.5]), np.array([np.nan])), "outside 0 to 1"),
        (Bridges(np.array([[0, 1]]), np.array([0.5]), np.zeros(2)), "2 margins"),
    ],
)
def test_impossible_bridges_are_refused(bridges: Bridges, words: str) -> None:
    with pytest.raises(BadPreferences, match=words):
        fit_offsets(2, bridges)


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.5, 0.9])
def test_targets_keep_the_order_lie_within_bounds_and_have_the_mean_asked_for(mean: float) -> None:
    random = np.random.default_rng(2)
    scores = [random.normal(size=n) for n in (5, 1, 40, 0)]
    found = targets(scores, np.array([0.5, -1.0, 0.0, 2.0]), mean=mean)
    every = np.concatenate(found)
    assert every.mean() == pytest.approx(mean)
    assert ((every > 0) & (every < 1)).all()
    for target, score in zip(found, scores, strict=True):
        assert np.array_equal(np.argsort(target), np.argsort(score))


def test_targets_of_nothing_are_nothing_and_a_mean_of_one_is_refused() -> None:
    assert targets([], np.zeros(0)) == []
    with pytest.raises(ValueError, match="not between"):
        targets([np.zeros(2)], np.zeros(1), mean=1.0)
