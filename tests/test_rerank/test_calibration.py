"""Calibration fits against scikit-learn, known parameters, gradients and hand-worked cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank.ranking import calibration as c
from rerank.ranking import calibration_file as files
from rerank.ranking.confidence import Confidence

RNG = np.random.default_rng(7)
S = RNG.normal(size=4000) * 3
G = (RNG.random(4000) < 1 / (1 + np.exp(-(0.5 * S - 1)))).astype(float)
R = 1 / (1 + np.exp(-S / 5))
QUERIES = [number // 10 for number in range(4000)]


def test_platt_equals_logistic_regression_and_recovers_the_parameters() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    fit = c.fit_platt(S, G)
    peer = linear.LogisticRegression(C=1e6, tol=1e-10, max_iter=1000).fit(S[:, None], G)
    assert fit.slope == pytest.approx(peer.coef_[0, 0], abs=1e-4)
    assert fit.intercept == pytest.approx(peer.intercept_[0], abs=1e-4)
    assert fit.slope == pytest.approx(0.5, abs=0.06)


def test_temperature_of_exact_probabilities_is_recovered() -> None:
    assert c.fit_temperature(S, R).slope == pytest.approx(0.2, abs=1e-5)


def test_beta_recovers_the_curve_of_beta_distributed_scores() -> None:
    # Relevant scores follow Beta(4, 2), others Beta(2, 5), both equally often. Bayes:
    # log odds = (4-2) ln r - (5-2) ln(1-r) + ln(B(2,5) / B(4,2)); B(2,5) = 1/30, B(4,2) = 1/20.
    random = np.random.default_rng(3)
    grades = np.repeat([1.0, 0.0], 20_000)
    relevance = np.concatenate([random.beta(4, 2, 20_000), random.beta(2, 5, 20_000)])
    fit = c.fit_beta(relevance, grades)
    assert fit.a == pytest.approx(2, abs=0.1)
    assert fit.b == pytest.approx(3, abs=0.1)
    assert fit.c == pytest.approx(np.log(20 / 30), abs=0.15)


def test_beta_of_honest_probabilities_is_the_identity() -> None:
    fit = c.fit_beta(R, R)
    assert [fit.a, fit.b, fit.c] == pytest.approx([1, 1, 0], abs=1e-3)


def test_isotonic_equals_scikit_learn_with_ties() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    s = np.round(S, 1)
    peer = isotonic.IsotonicRegression(out_of_bounds="clip").fit(s, G)
    at = np.linspace(-12, 12, 300)
    fit = c.fit_isotonic(s, G)
    assert np.allclose(fit.apply(at), peer.predict(at), atol=1e-6)
    assert len(fit.scores) < len(np.unique(s))


def test_isotonic_pools_a_hand_worked_violation() -> None:
    # Means by score: 1 -> 0, 2 -> 1, 3 -> 0.5 (two pairs), 4 -> 1. Scores 2 and 3 violate and pool
    # to (1 + 0 + 1) / 3.
    scores = [1, 1, 1, 1, 2, 3, 3, 4, 4, 4]
    grades = [0, 0, 0, 0, 1, 0, 1, 1, 1, 1]
    fit = c.fit_isotonic(scores, grades)
    assert fit.apply([0, 1, 2, 2.5, 3, 4, 9]) == pytest.approx([0, 0, 2 / 3, 2 / 3, 2 / 3, 1, 1])


def test_the_gradient_is_that_of_the_loss_and_vanishes_at_the_fit() -> None:
    x = np.column_stack([S[:200], np.abs(S[:200]), np.ones(200)])
    ridge = np.array([0.5, 1e-6, 0.0])
    w = np.array([0.3, -0.2, 0.1])
    step = 1e-5
    numeric = [
        (
            c.logistic_loss(w + step * unit, x, G[:200], ridge)
            - c.logistic_loss(w - step * unit, x, G[:200], ridge)
        )
        / (2 * step)
        for unit in np.eye(3)
    ]
    assert c.logistic_gradient(w, x, G[:200], ridge) == pytest.approx(numeric, abs=1e-5)
    fitted = c.logistic(x, G[:200], ridge)
    assert np.abs(c.logistic_gradient(fitted, x, G[:200], ridge)).max() < 1e-6


def test_a_reversed_score_gives_a_constant_that_says_so() -> None:
    at = np.linspace(-9, 9, 50)
    for fit in (c.fit_platt(-S, G), c.fit_temperature(-S, G), c.fit_isotonic(-S, G)):
        assert fit.is_constant
        assert np.ptp(fit.apply(at)) == 0
    beta = c.fit_beta(1 - R, G)
    assert beta.is_constant
    assert beta.apply(at, np.linspace(0, 1, 50)) == pytest.approx(G.mean())
    choice = c.choose_calibration(-S, G, QUERIES, relevance=1 - R)
    assert choice.calibration.is_constant
    assert "same number" in choice.warning


def test_perfectly_separated_grades_stay_finite() -> None:
    s = np.arange(20.0)
    g = (s >= 10).astype(float)
    for kind in c.KINDS:
        p = c.fit(kind, s, g, s / 19).apply(s, s / 19)
        assert np.isfinite(p).all()
        assert (np.diff(p) >= 0).all()


PAIRS = st.lists(
    st.tuples(st.floats(-50, 50), st.sampled_from([0.0, 1 / 3, 1.0])), min_size=10, max_size=60
)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_every_map_rises_and_stays_a_probability(pairs: list[tuple[float, float]]) -> None:
    s, g = (np.array(each) for each in zip(*pairs, strict=True))
    if g.min() == g.max():
        return
    at = np.sort(np.concatenate([s, np.linspace(-60, 60, 40)]))
    relevance = c.sigmoid(s / 5), c.sigmoid(at / 5)
    for kind in c.KINDS:
        p = c.fit(kind, s, g, relevance[0]).apply(at, relevance[1])
        assert (np.diff(p) >= -1e-12).all(), kind
        assert p.min() >= 0
        assert p.max() <= 1


def test_the_choice_takes_the_plainest_kind_that_predicts_as_well() -> None:
    choice = c.choose_calibration(S, G, QUERIES, relevance=R)
    assert choice.kind == "platt"
    assert choice.losses["platt"] < choice.losses["temperature"]
    assert choice.calibration == c.fit_platt(S, G)
    assert choice.warning == ""
    steps = (RNG.random(4000) < np.where(S > 0, 0.9, np.where(S > -1, 0.5, 0.05))).astype(float)
    assert c.choose_calibration(S, steps, QUERIES, relevance=R).kind == "isotonic"


def test_held_out_predictions_have_not_seen_their_query() -> None:
    grades = G.copy()
    before = c.choose_calibration(S, grades, QUERIES).held_out
    fold_of, _ = c.folds_of(QUERIES, 5, 0)
    assert all(len(set(fold_of[at : at + 10])) == 1 for at in range(0, 4000, 10))
    changed = np.flatnonzero(fold_of == 2)[:20]
    grades[changed] = 1 - grades[changed]
    after = c.choose_calibration(S, grades, QUERIES).held_out
    assert np.array_equal(before[changed], after[changed])


def test_json_round_trip_is_exact() -> None:
    for kind in c.KINDS:
        fit = c.fit(kind, S, G, R)
        assert c.from_json(c.to_json(fit)) == fit


@pytest.mark.parametrize("text", ['{"kind": "spline"}', '{"kind": "beta", "a": 1}', "[]"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="calibration"):
        c.from_json(text)


def test_what_cannot_be_fitted_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least"):
        c.fit_platt([1, 2], [0, 1])
    with pytest.raises(ValueError, match="the same"):
        c.fit_platt(range(20), [1] * 20)
    with pytest.raises(ValueError, match="between 0 and 1"):
        c.fit_beta(range(20), [0, 1] * 10)
    with pytest.raises(ValueError, match="not given"):
        c.fit("beta", range(20), [0, 1] * 10)
    with pytest.raises(ValueError, match="at least two"):
        c.choose_calibration(S, G, ["the same query"] * len(S))


def test_a_calibration_lies_beside_its_model(tmp_path: Path) -> None:
    assert files.load_model_calibration(tmp_path) is None
    confidence = Confidence((1.0, 0.5, 0.0, -0.5), 0.1, (0.0,) * 4, (1.0,) * 4, 2.0)
    for kind, sure in (("isotonic", confidence), ("beta", None)):
        saved = files.ModelCalibration(c.fit(kind, S, G, R), sure, "4,000 pairs of a test.")
        files.save_model_calibration(tmp_path, saved)
        assert files.load_model_calibration(tmp_path) == saved
    path = tmp_path / files.FILE_NAME
    assert json.loads(path.read_text())["calibration"]["kind"] == "beta"
    for broken in ("{", "[]", "{}", '{"calibration": {"kind": "beta"}}'):
        path.write_text(broken)
        with pytest.raises(ValueError, match="holds no calibration"):
            files.load_model_calibration(tmp_path)
