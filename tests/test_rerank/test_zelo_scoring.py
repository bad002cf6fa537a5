"""Thurstone and Bradley-Terry fits against hand work, numerical slopes, choix and known truth."""

from __future__ import annotations

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.special import erfinv
from scipy.stats import kendalltau

from rerank.errors import BadPreferences
from rerank.zelo.links import BRADLEY_TERRY, THURSTONE, Link
from rerank.zelo.pairing import random_cycles
from rerank.zelo.scoring import Preferences, ZeloScores, fit_scores

LINKS = pytest.mark.parametrize("link", [THURSTONE, BRADLEY_TERRY], ids=lambda link: link.name)


def fit_one(query: Preferences, link: Link = THURSTONE, ridge: float = 0.01) -> ZeloScores:
    return fit_scores([query], link=link, ridge=ridge)[0]


def compared(
    documents: int, seed: int, link: Link = THURSTONE, votes: int = 3, degree: int = 8
) -> tuple[np.ndarray, Preferences]:
    """True scores and what `votes` hard raters say who follow the link exactly."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=documents)
    truth -= truth.mean()
    pairs = random_cycles(documents, degree, seed)
    chance = link.probability(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    values = random.binomial(votes, chance) / votes
    return truth, Preferences(documents, pairs, values, np.full(len(pairs), float(votes)))


def loss(query: Preferences, link: Link, ridge: float, scores: np.ndarray) -> float:
    """The formula of `fit_scores`, written the slow way."""
    total = ridge / 2 * float(scores @ scores)
    weights = np.ones(len(query.pairs)) if query.weights is None else query.weights
    for (a, b), value, weight in zip(query.pairs, query.values, weights, strict=True):
        win, lose = link.logs(np.array([scores[a] - scores[b]]))
        total -= float(weight * (value * win[0] + (1 - value) * lose[0]))
    return total


@LINKS
def test_slopes_of_a_link_equal_numerical_ones(link: Link) -> None:
    x = np.linspace(-6, 6, 49)
    step = 1e-5
    slope, curvature = link.slopes(x, link.logs(x)[0])
    numerical = (link.logs(x + step)[0] - link.logs(x - step)[0]) / (2 * step)
    assert np.allclose(slope, numerical, rtol=1e-6, atol=1e-9)
    bent = (
        link.slopes(x + step, link.logs(x + step)[0])[0]
        - link.slopes(x - step, link.logs(x - step)[0])[0]
    ) / (2 * step)
    assert np.allclose(curvature, -bent, rtol=1e-5, atol=1e-8)


@LINKS
def test_a_link_is_a_probability_and_stays_finite_far_out(link: Link) -> None:
    x = np.array([-1e5, -300.0, -30.0, 0.0, 30.0, 300.0, 1e5])
    win, lose = link.logs(x)
    slope, curvature = link.slopes(x, win)
    for values in (win, lose, slope, curvature):
        assert np.isfinite(values).all()
    assert (slope >= 0).all() and (curvature >= 0).all()
    assert np.allclose(np.exp(win) + np.exp(lose), 1.0)
    assert link.probability(np.array([0.0]))[0] == pytest.approx(0.5)


def test_slope_at_zero_is_one_over_root_pi_for_thurstone_and_a_quarter_for_logit() -> None:
    # d F / d x = F x slope of log F = 1/2 x slope.
    zero = np.zeros(1)
    assert THURSTONE.slopes(zero, THURSTONE.logs(zero)[0])[0][0] / 2 == pytest.approx(np.pi**-0.5)
    assert BRADLEY_TERRY.slopes(zero, BRADLEY_TERRY.logs(zero)[0])[0][0] / 2 == pytest.approx(0.25)


def test_two_documents_by_hand() -> None:
    # Without a prior the fit meets the preference: (1 + erf d) / 2 = 0.8, so d = erfinv(0.6)
    # = 0.5951, and by symmetry the scores are + and - half of that.
    query = Preferences(2, np.array([[0, 1]]), np.array([0.8]))
    half = float(erfinv(0.6)) / 2
    assert fit_one(query, ridge=0).scores == pytest.approx([half, -half])
    # Bradley-Terry: the difference is the logit, ln(0.8 / 0.2) = ln 4.
    fitted = fit_one(query, BRADLEY_TERRY, ridge=0)
    assert fitted.scores == pytest.approx([np.log(4) / 2, -np.log(4) / 2])
    # Its curvature in the difference is 0.8 x 0.2 = 0.16, variance 6.25, and each score is half of
    # the difference: a standard error of 2.5 / 2.
    assert fitted.deviations == pytest.approx([1.25, 1.25])


def test_ten_judgments_weigh_like_ten_copies() -> None:
    query = Preferences(2, np.array([[0, 1]]), np.array([0.8]), np.array([10.0]))
    copies = Preferences(2, np.repeat([[0, 1]], 10, axis=0), np.repeat(0.8, 10))
    weighted, copied = fit_scores([query, copies], ridge=0.5)
    assert weighted.scores == pytest.approx(copied.scores)
    assert weighted.deviations == pytest.approx(copied.deviations)


@LINKS
def test_the_fit_has_no_slope_left_and_nothing_is_lower(link: Link) -> None:
    _, query = compared(12, 3, link, degree=4)
    fitted = fit_one(query, link, ridge=0.05)

    def slow(scores: np.ndarray) -> float:
        return loss(query, link, 0.05, scores)

    assert np.abs(approx_fprime(fitted.scores, slow, 1e-6)).max() < 1e-4
    assert fitted.loss == pytest.approx(slow(fitted.scores), abs=1e-9)
    elsewhere = minimize(slow, np.zeros(12), method="BFGS")
    assert fitted.loss <= elsewhere.fun + 1e-7
    assert np.allclose(fitted.scores, elsewhere.x, atol=1e-3)


@LINKS
def test_deviations_are_the_inverse_curvature_among_centred_scores(link: Link) -> None:
    _, query = compared(6, 5, link, degree=4)
    fitted = fit_one(query, link, ridge=0.2)
    step = 1e-3
    curvature = np.zeros((6, 6))
    axes = np.eye(6) * step
    for i in range(6):
        for j in range(6):
            corners = [
                sign
                * other
                * loss(query, link, 0.2, fitted.scores + sign * axes[i] + other * axes[j])
                for sign in (1, -1)
                for other in (1, -1)
            ]
            curvature[i, j] = sum(corners) / (4 * step * step)
    centre = np.eye(6) - 1 / 6
    expected = np.sqrt(np.diag(centre @ np.linalg.inv(curvature) @ centre))
    assert fitted.deviations == pytest.approx(expected, rel=1e-4)


def as_wins(query: Preferences) -> list[tuple[int, int]]:
    """(winner, loser) rows as choix wants them."""
    rows: list[tuple[int, int]] = []
    for (a, b), value in zip(query.pairs.tolist(), query.values, strict=True):
        won = round(3 * float(value))
        rows += [(a, b)] * won + [(b, a)] * (3 - won)
    return rows


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bradley_terry_equals_choix_with_the_same_prior(seed: int) -> None:
    _, query = compared(30, seed, BRADLEY_TERRY)
    # choix penalises alpha x e^2, we ridge / 2 x e^2.
    theirs = choix.opt_pairwise(30, as_wins(query), alpha=0.05, tol=1e-10)
    ours = fit_one(query, BRADLEY_TERRY, ridge=0.1).scores
    assert np.allclose(ours, theirs - theirs.mean(), atol=1e-5)


def test_bradley_terry_without_prior_equals_choix_iterative_spectral_ranking() -> None:
    _, query = compared(15, 4, BRADLEY_TERRY, degree=14)
    theirs = choix.ilsr_pairwise(15, as_wins(query), alpha=0.0, tol=1e-12, max_iter=1000)
    ours = fit_one(query, BRADLEY_TERRY, ridge=0).scores
    assert np.allclose(ours, theirs - theirs.mean(), atol=1e-6)


def test_thurstone_agrees_with_choix_expectation_propagation() -> None:
    # Its probit has unit variance, Phi(difference), ours Phi(sqrt(2) difference): its scores are
    # sqrt(2) times ours. It gives posterior means where we give the mode, hence no equality.
    _, query = compared(20, 6)
    means, _ = choix.ep_pairwise(20, as_wins(query), alpha=1.0, model="probit")
    ours = fit_one(query, ridge=2.0).scores * np.sqrt(2)
    assert np.corrcoef(means, ours)[0, 1] > 0.999
    assert np.allclose(ours, means - means.mean(), rtol=0.1, atol=0.02)


@LINKS
def test_exact_preferences_give_the_true_scores_back(link: Link) -> None:
    random = np.random.default_rng(8)
    truth = random.normal(size=50)
    truth -= truth.mean()
    pairs = random_cycles(50, 4, 8)
    exact = link.probability(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    assert np.allclose(fit_one(Preferences(50, pairs, exact), link, 0).scores, truth, atol=1e-6)


def test_noisy_votes_recover_the_order_and_the_stated_errors_are_honest() -> None:
    drawn = [compared(100, seed) for seed in range(20)]
    fitted = fit_scores([query for _, query in drawn])
    orders = [kendalltau(truth, f.scores)[0] for (truth, _), f in zip(drawn, fitted, strict=True)]
    assert np.mean(orders) > 0.78
    errors = np.concatenate(
        [(f.scores - truth) / f.deviations for (truth, _), f in zip(drawn, fitted, strict=True)]
    )
    assert 0.93 < float((np.abs(errors) < 1.96).mean()) < 0.97


def test_more_comparisons_mean_smaller_errors() -> None:
    few, many = fit_scores([compared(60, 1, degree=degree)[1] for degree in (4, 16)])
    assert many.deviations.mean() < 0.6 * few.deviations.mean()


@LINKS
def test_a_batch_of_unequal_queries_equals_one_by_one(link: Link) -> None:
    queries = [compared(n, n, link)[1] for n in (2, 40, 3, 17, 100)]
    empty = np.zeros((0, 2), dtype=np.int64)
    queries += [Preferences(0, empty, np.zeros(0)), Preferences(1, empty, np.zeros(0))]
    together = fit_scores(queries, link=link, ridge=0.01, batch_size=3)
    for query, found in zip(queries, together, strict=True):
        alone = fit_one(query, link)
        assert np.allclose(found.scores, alone.scores, atol=1e-7)
        assert np.allclose(found.deviations, alone.deviations, atol=1e-7)
        assert abs(found.scores.sum()) < 1e-9


@given(st.integers(2, 25), st.integers(0, 2**31), st.sampled_from([THURSTONE, BRADLEY_TERRY]))
def test_names_and_the_order_of_a_pair_do_not_matter(n: int, seed: int, link: Link) -> None:
    random = np.random.default_rng(seed)
    pairs = random.integers(n, size=(3 * n, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    # Hard, soft and extreme, with weights over six orders of magnitude.
    values = random.choice([0.0, 1.0, 0.5, 0.2, 0.999], size=len(pairs))
    weights = 10.0 ** random.uniform(-3, 3, size=len(pairs))
    names = random.permutation(n)
    plain, renamed, turned = fit_scores(
        [
            Preferences(n, pairs, values, weights),
            Preferences(n, names[pairs], values, weights),
            Preferences(n, pairs[:, ::-1], 1 - values, weights),
        ],
        link=link,
    )
    assert np.isfinite(plain.scores).all() and np.isfinite(plain.deviations).all()
    assert abs(plain.scores.sum()) < 1e-6
    assert np.allclose(renamed.scores[names], plain.scores, atol=1e-4)
    assert np.allclose(renamed.deviations[names], plain.deviations, atol=1e-4)
    assert np.allclose(turned.scores, plain.scores, atol=1e-4)


def test_no_document_and_one_document_are_fine() -> None:
    empty = np.zeros((0, 2), dtype=np.int64)
    none, one = fit_scores([Preferences(0, empty, np.zeros(0)), Preferences(1, empty, np.zeros(0))])
    assert none.scores.shape == (0,)
    assert one.scores.tolist() == [0.0] and one.deviations.tolist() == [0.0]
    assert fit_scores([]) == []


@LINKS
def test_undefeated_documents_get_finite_scores_in_order(link: Link) -> None:
    pairs = np.array([[a, b] for a in range(30) for b in range(a + 1, 30)])
    fitted = fit_one(Preferences(30, pairs, np.ones(len(pairs)), np.full(len(pairs), 50.0)), link)
    assert np.isfinite(fitted.scores).all() and np.isfinite(fitted.deviations).all()
    assert (np.diff(fitted.scores) < 0).all()


def test_without_a_prior_undefeated_documents_are_refused_in_words() -> None:
    query = Preferences(3, np.array([[0, 1], [1, 2], [0, 2]]), np.array([1.0, 0.6, 1.0]))
    with pytest.raises(BadPreferences, match="never lost"):
        fit_one(query, ridge=0)


def test_unconnected_parts_are_named_or_left_to_the_prior() -> None:
    query = Preferences(5, np.array([[0, 1], [2, 3]]), np.array([0.9, 0.2]))
    with pytest.raises(BadPreferences, match="3 parts"):
        fit_one(query, ridge=0)
    fitted = fit_one(query, ridge=0.01)
    assert fitted.components == 3
    assert fitted.scores[0] + fitted.scores[1] == pytest.approx(0, abs=1e-8)
    # Nobody met document 4: the prior's mean, and nearly the prior's deviation of 10.
    assert fitted.scores[4] == pytest.approx(0, abs=1e-8)
    assert fitted.deviations[4] > 8
    # A comparison without weight connects nothing.
    joined = Preferences(2, np.array([[0, 1]]), np.array([0.5]), np.array([0.0]))
    assert fit_one(joined).components == 2


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Preferences(2, np.array([[0, 1]]), np.array([1.2])), "outside 0 to 1"),
        (Preferences(2, np.array([[0, 1]]), np.array([np.nan])), "outside 0 to 1"),
        (Preferences(2, np.array([[0, 0]]), np.array([0.5])), "with itself"),
        (Preferences(2, np.array([[0, 2]]), np.array([0.5])), "outside its 2"),
        (Preferences(2, np.array([[0, 1]]), np.array([0.5, 0.5])), "1 pairs, 2 preferences"),
        (Preferences(2, np.array([[0, 1]]), np.array([0.5]), np.array([-1.0])), "weight"),
        (Preferences(2, np.array([[0, 1]]), np.array([0.5]), np.array([np.inf])), "weight"),
    ],
)
def test_impossible_preferences_are_refused(query: Preferences, words: str) -> None:
    with pytest.raises(BadPreferences, match=words):
        fit_one(query)


@pytest.mark.parametrize("ridge", [-1.0, float("nan"), float("inf"), 1e-12])
def test_an_impossible_ridge_is_refused(ridge: float) -> None:
    with pytest.raises(BadPreferences, match="ridge"):
        fit_scores([], ridge=ridge)
