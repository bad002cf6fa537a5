"""Measures of calibration and of confidence, worked by hand where they can be."""

from __future__ import annotations

import numpy as np
import pytest

from rerank.ranking import confidence as sure
from rerank.ranking import reliability as r

# --- calibration error -------------------------------------------------------------------------


def test_errors_of_hand_worked_probabilities() -> None:
    p, g = [0.2] * 10 + [0.8] * 10, [0.0] * 10 + [1.0] * 10
    assert r.expected_calibration_error(p, g, bins=2) == pytest.approx(0.2)
    assert r.brier(p, g) == pytest.approx(0.04)


def test_measures_take_one_pair_and_one_class() -> None:
    assert r.expected_calibration_error([0.7], [1]) == pytest.approx(0.3)
    assert r.brier([0.5, 0.5], [0, 0]) == pytest.approx(0.25)
    assert len(r.reliability_bins([0.7], [1])) == 1
    with pytest.raises(ValueError, match="not 0"):
        r.brier([], [])
    with pytest.raises(ValueError, match="between 0 and 1"):
        r.brier([1.5], [1])


def test_equal_probabilities_share_a_bin() -> None:
    # A constant is right on average whatever order its pairs come in.
    g = [1.0, 0.0] * 50
    assert r.expected_calibration_error([0.5] * 100, g) == pytest.approx(0)
    assert [each.count for each in r.reliability_bins([0.5] * 100, g)] == [100]


def test_bins_hold_what_the_diagram_shows() -> None:
    p = [0.1] * 20 + [0.9] * 20
    g = [1.0] * 4 + [0.0] * 16 + [1.0] * 18 + [0.0] * 2
    low, high = r.reliability_bins(p, g, bins=2)
    assert (low.predicted, low.observed, low.count) == pytest.approx((0.1, 0.2, 20))
    assert (high.predicted, high.observed, high.count) == pytest.approx((0.9, 0.9, 20))
    assert low.low < 0.2 < low.high


def test_the_interval_is_wider_when_whole_queries_are_drawn() -> None:
    random = np.random.default_rng(1)
    # Ten pairs of a query share one grade: 40 queries are 40 observations, not 400.
    g = np.repeat((random.random(40) < 0.4).astype(float), 10)
    p = np.full(400, 0.5)
    by_pair = r.calibration_error_interval(p, g)
    by_query = r.calibration_error_interval(p, g, [number // 10 for number in range(400)])
    assert by_pair.value == by_query.value == pytest.approx(abs(0.5 - g.mean()))
    assert by_query.high - by_query.low > 2 * (by_pair.high - by_pair.low)
    for interval in (by_pair, by_query):
        assert interval.low <= interval.value <= interval.high


def test_the_interval_covers_the_error_of_a_known_distortion() -> None:
    # p = 0.3 said, 0.5 true: the error is 0.2; about 95 of 100 intervals should hold it.
    random = np.random.default_rng(5)
    held = 0
    for seed in range(60):
        g = (random.random(200) < 0.5).astype(float)
        interval = r.calibration_error_interval([0.3] * 200, g, rounds=300, seed=seed)
        held += interval.low <= 0.2 <= interval.high
    assert held >= 52


# --- risk and coverage -------------------------------------------------------------------------


def test_risk_and_coverage_of_a_hand_worked_order() -> None:
    # Surest first: right, wrong, right. Risks 0, 1/2, 1/3; their mean is 5/18. Random: 1/3.
    # Oracle: right, right, wrong gives 0, 0, 1/3.
    curve = sure.risk_coverage([0.9, 0.5, 0.1], [1, 0, 1])
    assert curve.coverage == pytest.approx((1 / 3, 2 / 3, 1))
    assert curve.risk == pytest.approx((0, 1 / 2, 1 / 3))
    assert curve.area == pytest.approx(5 / 18)
    assert curve.random == pytest.approx(1 / 3)
    assert curve.oracle == pytest.approx(1 / 9)
    assert curve.gain.value == pytest.approx(1 / 18)


def test_equal_confidence_is_worth_what_chance_is() -> None:
    curve = sure.risk_coverage([0.5] * 8, [1, 1, 1, 0, 0, 0, 0, 0])
    assert curve.area == pytest.approx(curve.random)
    assert not curve.beats_chance


# --- confidence --------------------------------------------------------------------------------


def made_searches(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Searches whose first hit is relevant the more likely the more it stands out."""
    random = np.random.default_rng(seed)
    searches, right = [], []
    for _ in range(count):
        others = random.normal(-2, 1, 30)
        lead = random.uniform(0, 4)
        searches.append(random.permutation(np.append(others, others.max() + lead)))
        right.append(float(random.random() < 1 / (1 + np.exp(-2 * (lead - 2)))))
    return searches, np.array(right)


def test_confidence_learns_what_tells_right_from_wrong() -> None:
    searches, right = made_searches(300)
    fitted = sure.fit_confidence(searches, right)
    assert fitted is not None
    assert fitted.curve.beats_chance
    assert fitted.curve.oracle < fitted.curve.area < 0.6 * fitted.curve.random
    fresh, truth = made_searches(400, seed=9)
    said = [fitted.confidence.of(each) for each in fresh]
    assert r.expected_calibration_error(said, truth) < 0.08
    assert sure.risk_coverage(said, truth).beats_chance


def test_confidence_of_searches_that_tell_nothing_does_not_beat_chance() -> None:
    searches, _ = made_searches(100)
    right = (np.random.default_rng(2).random(100) < 0.5).astype(float)
    fitted = sure.fit_confidence(searches, right)
    assert fitted is not None
    assert not fitted.curve.beats_chance


def test_confidence_needs_enough_searches_that_differ() -> None:
    searches, right = made_searches(60)
    assert sure.fit_confidence(searches[:49], right[:49]) is None
    assert sure.fit_confidence(searches, np.ones(60)) is None
    assert sure.fit_confidence([], []) is None


def test_confidence_takes_one_candidate_and_any_order_and_survives_json() -> None:
    searches, right = made_searches(80)
    fitted = sure.fit_confidence(searches, right)
    assert fitted is not None
    confidence = fitted.confidence
    assert 0 < confidence.of([1.5]) < 1
    assert confidence.of(searches[0]) == pytest.approx(confidence.of(searches[0][::-1]))
    assert sure.Confidence.from_json(confidence.as_json()) == confidence
    with pytest.raises(ValueError, match="at least one"):
        confidence.of([])
    with pytest.raises(ValueError, match="incomplete"):
        sure.Confidence.from_json({"weights": [1]})
