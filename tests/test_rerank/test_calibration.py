"""Calibration fits against scikit-learn, known parameters and hand-worked cases."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from rerank.ranking import calibration as c

RNG = np.random.default_rng(7)
S = RNG.normal(size=4000) * 3
G = (RNG.random(4000) < 1 / (1 + np.exp(-(0.5 * S - 1)))).astype(float)


def test_platt_equals_logistic_regression_and_recovers_the_parameters() -> None:
    fit = c.fit_platt(S, G)
    peer = LogisticRegression(C=1e6, tol=1e-10, max_iter=1000).fit(S[:, None], G)
    assert fit.slope == pytest.approx(peer.coef_[0, 0], abs=1e-4)
    assert fit.intercept == pytest.approx(peer.intercept_[0], abs=1e-4)
    assert fit.slope == pytest.approx(0.5, abs=0.06)


def test_temperature_of_exact_probabilities_is_recovered() -> None:
    assert c.fit_temperature(S, 1 / (1 + np.exp(-S / 5))).slope == pytest.approx(0.2, abs=1e-5)


def test_isotonic_equals_scikit_learn_with_ties() -> None:
    s = np.round(S, 1)
    peer = IsotonicRegression(out_of_bounds="clip").fit(s, G)
    at = np.linspace(-12, 12, 300)
    assert np.allclose(c.fit_isotonic(s, G).apply(at), peer.predict(at), atol=1e-6)


def test_a_reversed_score_never_gives_a_falling_map() -> None:
    for fit in (c.fit_platt, c.fit_temperature, c.fit_isotonic):
        assert (np.diff(fit(-S, G).apply(np.linspace(-9, 9, 50))) >= 0).all()


def test_errors_of_hand_worked_probabilities() -> None:
    p, g = [0.2] * 10 + [0.8] * 10, [0.0] * 10 + [1.0] * 10
    assert c.expected_calibration_error(p, g, bins=2) == pytest.approx(0.2)
    assert c.brier(p, g) == pytest.approx(0.04)


def test_json_round_trip_is_exact() -> None:
    for fit in (c.fit_platt(S, G), c.fit_isotonic(S, G)):
        assert c.from_json(c.to_json(fit)) == fit


def test_too_few_or_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        c.fit_platt([1, 2], [0, 1])
    with pytest.raises(ValueError, match="the same"):
        c.fit_platt(range(20), [1] * 20)
