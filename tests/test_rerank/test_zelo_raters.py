"""Broken raters are found from where the others agree, and cost nothing once found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from rerank.errors import BadPreferences
from rerank.zelo.pairing import random_cycles
from rerank.zelo.raters import Consensus, calibrated_consensus, plain_consensus
from rerank.zelo.scoring import Preferences, fit_scores

DOCUMENTS, QUERIES = 60, 10


class Panel:
    """Ten queries judged by raters of these kinds. Their noise is not that of the fitted model: it
    has heavy tails, and answers are squashed by a logistic curve."""

    def __init__(self, *kinds: str, hard: bool = False, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.names = [f"{kind} {place}" for place, kind in enumerate(kinds)]
        self.truth = random.normal(size=(QUERIES, DOCUMENTS))
        self.pairs = [random_cycles(DOCUMENTS, 8, seed + query) for query in range(QUERIES)]
        gaps = np.concatenate(
            [t[p[:, 0]] - t[p[:, 1]] for t, p in zip(self.truth, self.pairs, strict=True)]
        )
        self.swapped = random.random((len(kinds), len(gaps))) < 0.5
        self.shown = np.zeros(self.swapped.shape)
        for row, kind in enumerate(kinds):
            felt = np.where(self.swapped[row], -gaps, gaps)
            felt = felt + random.standard_t(3, size=len(gaps)) * 0.7
            felt = {
                "good": felt,
                "leaning": felt + 1.0,
                "reversed": -felt,
                "random": random.normal(size=len(gaps)) * 1.5,
                "always first": np.full(len(gaps), 2.0),
            }[kind]
            self.shown[row] = (felt > 0) if hard else 1 / (1 + np.exp(-2 * felt))

    def consensus(self, calibrated: bool = True) -> Consensus:
        mix = calibrated_consensus if calibrated else plain_consensus
        return mix(self.names, self.shown, self.swapped)

    def tau(self, consensus: Consensus) -> float:
        """Mean Kendall tau of the fitted scores to the truth."""
        starts = np.cumsum([0, *(len(pairs) for pairs in self.pairs)])
        queries = [
            Preferences(
                DOCUMENTS,
                pairs,
                consensus.values[start : start + len(pairs)],
                consensus.weights[start : start + len(pairs)],
            )
            for pairs, start in zip(self.pairs, starts[:-1], strict=True)
        ]
        fitted = fit_scores(queries)
        taus = [kendalltau(t, f.scores)[0] for t, f in zip(self.truth, fitted, strict=True)]
        return float(np.mean(taus))


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("broken", ["random", "always first", "reversed"])
def test_one_broken_rater_of_three_is_named_and_costs_nothing(broken: str, hard: bool) -> None:
    panel = Panel("good", "good", broken, hard=hard)
    found = panel.consensus()
    assert [bool(rater.suspicion) for rater in found.raters] == [False, False, True]
    assert broken in found.raters[2].suspicion
    assert found.raters[2].reliability < 0.05 < 0.3 < found.raters[0].reliability
    without = Panel("good", "good", broken, hard=hard)
    without.names, without.shown, without.swapped = (
        without.names[:2],
        without.shown[:2],
        without.swapped[:2],
    )
    assert panel.tau(found) > panel.tau(panel.consensus(calibrated=False)) + 0.04
    assert panel.tau(found) > without.tau(without.consensus()) - 0.01


def test_three_good_raters_are_believed_alike_and_nothing_is_lost() -> None:
    panel = Panel("good", "good", "good")
    found = panel.consensus()
    assert not any(rater.suspicion for rater in found.raters)
    assert all(rater.slope == pytest.approx(1, abs=0.1) for rater in found.raters)
    assert all(abs(rater.bias) < 0.03 for rater in found.raters)
    assert panel.tau(found) > panel.tau(panel.consensus(calibrated=False)) - 0.005
    assert found.weights.mean() == pytest.approx(3, abs=0.3)


def test_a_leaning_to_the_first_place_is_measured_and_taken_out() -> None:
    panel = Panel("leaning", "leaning", "leaning")
    found = panel.consensus()
    for rater in found.raters:
        assert rater.bias == pytest.approx(panel.shown.mean() - 0.5, abs=0.03)
        assert rater.bias > 0.15
    assert panel.tau(found) > panel.tau(panel.consensus(calibrated=False)) + 0.02


def test_a_single_rater_is_freed_of_its_leaning_too() -> None:
    panel = Panel("leaning")
    found = panel.consensus()
    assert found.raters[0].bias == pytest.approx(panel.shown.mean() - 0.5)
    assert "shown first" in found.raters[0].suspicion
    assert panel.tau(found) > panel.tau(panel.consensus(calibrated=False))


def test_the_stated_beta_has_the_variance_that_was_seen() -> None:
    # Answers drawn from the model itself: mu = 0.5 + 0.8 (p - 0.5) + 0.1, kappa = 6.
    random = np.random.default_rng(4)
    p = random.uniform(0.1, 0.9, size=4000)
    swapped = random.random((3, 4000)) < 0.5
    facing = np.where(swapped, 1 - p, p)
    mu = np.clip(0.5 + np.array([0.1, 0.0, 0.0])[:, None] + 0.8 * (facing - 0.5), 0.02, 0.98)
    shown = random.beta(mu * 6, (1 - mu) * 6)
    found = calibrated_consensus(["a", "b", "c"], shown, swapped)
    assert [rater.bias for rater in found.raters] == pytest.approx([0.1, 0, 0], abs=0.02)
    assert [rater.kappa for rater in found.raters] == pytest.approx([6, 6, 6], rel=0.2)
    # The scale of p is not in the answers: it is set by those who are believed.
    assert np.mean([rater.slope for rater in found.raters]) == pytest.approx(1, abs=0.02)
    assert np.corrcoef(found.values, p)[0, 1] > 0.85


def test_missing_answers_count_for_nobody() -> None:
    panel = Panel("good", "good", "good", "random")
    panel.shown[:, :40] = np.nan
    panel.shown[0, 40:200] = np.nan
    found = panel.consensus()
    assert np.isnan(found.values[:40]).all()
    assert (found.weights[:40] == 0).all()
    assert not np.isnan(found.values[40:]).any()
    assert found.weights[40:200].mean() < found.weights[200:].mean() - 0.5
    assert found.raters[0].answers == panel.shown.shape[1] - 200


def test_a_few_answers_are_taken_as_they_were_given() -> None:
    # The same document shown first three times is chance, no leaning.
    found = calibrated_consensus(["a"], np.ones((1, 3)), np.zeros((1, 3), dtype=bool))
    assert found.values.tolist() == [1.0, 1.0, 1.0] and not found.raters[0].suspicion
    panel = Panel("good", "good", "good", hard=True)
    panel.shown, panel.swapped = panel.shown[:, :12], panel.swapped[:, :12]
    found, plain = panel.consensus(), panel.consensus(calibrated=False)
    assert found.values == pytest.approx(plain.values)
    assert found.weights == pytest.approx(plain.weights)


def test_a_rater_with_three_answers_weighs_no_more_than_the_others() -> None:
    for seed in range(4):
        panel = Panel("good", "good", "good", "good", seed=seed)
        panel.shown[3, 3:] = np.nan
        found = panel.consensus()
        others = [rater.precision for rater in found.raters[:3]]
        assert min(others) <= found.raters[3].precision <= max(others)
        assert found.raters[3].bias == 0.0 and not found.raters[3].suspicion


def test_a_rater_without_answers_does_not_turn_the_others_against_each_other() -> None:
    for seed in range(4):
        panel = Panel("good", "random", "good", seed=seed)
        panel.shown[2] = np.nan
        found = panel.consensus()
        panel.names, panel.shown, panel.swapped = (
            panel.names[:2],
            panel.shown[:2],
            panel.swapped[:2],
        )
        assert found.values == pytest.approx(panel.consensus().values)
        assert not found.raters[2].suspicion


def test_three_raters_who_only_see_ties_have_answered() -> None:
    shown = np.full((3, 40), 0.5)
    found = calibrated_consensus(["a", "b", "c"], shown, np.zeros((3, 40), dtype=bool))
    assert found.values.tolist() == [0.5] * 40
    assert (found.weights == 3).all()


def test_a_weight_that_files_would_round_to_nothing_is_none() -> None:
    random = np.random.default_rng(0)
    truth, noise = random.normal(size=(2, 600))
    swapped = random.random((3, 600)) < 0.5
    sign = np.where(swapped[2], -1.0, 1.0)
    plane = np.stack([truth, sign, np.ones(600)], axis=1)
    noise -= plane @ np.linalg.lstsq(plane[20:], noise[20:], rcond=None)[0]
    told = np.stack([truth, truth, noise + 0.003 * truth]) * 0.12
    shown = 0.5 + np.where(swapped, -1.0, 1.0) * np.clip(told, -0.5, 0.5)
    shown[:2, :20] = np.nan
    found = calibrated_consensus(["a", "b", "weak"], shown, swapped)
    assert 0 < found.raters[2].precision < 1e-6 * found.raters[0].precision
    assert (found.weights[:20] == 0).all()
    assert (found.weights[20:] > 1.9).all()


def test_the_plain_mean_by_hand() -> None:
    # 0.9 for the pair's first, and 0.3 for its second, which is 0.7 for its first.
    shown = np.array([[0.9, np.nan], [0.3, np.nan]])
    found = plain_consensus(["a", "b"], shown, np.array([[False, False], [True, False]]))
    assert found.values[0] == pytest.approx(0.8)
    assert np.isnan(found.values[1])
    assert found.weights.tolist() == [2.0, 0.0]


def test_nobody_answered_is_no_consensus_and_no_crash() -> None:
    nothing = np.full((3, 4), np.nan)
    found = calibrated_consensus(["a", "b", "c"], nothing, np.zeros((3, 4), dtype=bool))
    assert np.isnan(found.values).all()
    empty = calibrated_consensus(["a"], np.zeros((1, 0)), np.zeros((1, 0), dtype=bool))
    assert empty.values.shape == (0,)


def test_raters_who_never_contradict_themselves_do_not_break_the_fit() -> None:
    same = np.tile(np.array([[1.0, 0.0, 1.0, 0.0]]), (3, 10))
    found = calibrated_consensus(["a", "b", "c"], same, np.zeros((3, 40), dtype=bool))
    assert np.isfinite(found.values).all()
    half = calibrated_consensus(["a", "b", "c"], np.full((3, 5), 0.5), np.zeros((3, 5), dtype=bool))
    assert half.values[half.weights > 0] == pytest.approx(0.5)


def test_answers_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(BadPreferences, match="outside 0 to 1"):
        plain_consensus(["a"], np.array([[1.5]]), np.array([[False]]))
    with pytest.raises(BadPreferences, match="do not fit together"):
        plain_consensus(["a"], np.array([[0.5]]), np.array([[False, True]]))
