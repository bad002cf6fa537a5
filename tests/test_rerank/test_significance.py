"""The paired test and the interval: by hand, at the edges, and calibrated on known data."""

from __future__ import annotations

import numpy as np
import pytest

from rerank.ranking.significance import compare, randomisation_p_value


def test_p_value_by_hand() -> None:
    # Of the 8 sign assignments of (1, 1, 1) two have |mean| = 1: p = 1/4.
    p = randomisation_p_value(np.ones(3), 20_000, np.random.default_rng(1))
    assert p == pytest.approx(0.25, abs=0.015)


def test_no_difference_is_no_evidence() -> None:
    same = {"a": 0.5, "b": 0.25}
    result = compare(same, same, rounds=200)
    assert (result.difference, result.p_value, result.low, result.high) == (0.0, 1.0, 0.0, 0.0)


def test_a_clear_difference_is_found_and_its_interval_excludes_zero() -> None:
    random = np.random.default_rng(3)
    a = {str(i): float(random.random()) for i in range(60)}
    b = {key: value + 0.1 + 0.05 * float(random.normal()) for key, value in a.items()}
    result = compare(a, b, rounds=500)
    assert result.p_value < 0.01
    assert 0 < result.low < result.difference < result.high
    mirrored = compare(b, a, rounds=500)
    assert mirrored.difference == pytest.approx(-result.difference)


def test_under_the_null_the_p_value_is_about_uniform() -> None:
    random = np.random.default_rng(5)
    p_values = [randomisation_p_value(random.normal(size=20), 100, random) for _ in range(200)]
    assert 0.02 < np.mean(np.array(p_values) < 0.1) < 0.2
    assert min(p_values) > 0


def test_the_same_seed_gives_the_same_answer() -> None:
    a, b = {"x": 0.1, "y": 0.9}, {"x": 0.4, "y": 0.8}
    assert compare(a, b, rounds=50, seed=4) == compare(a, b, rounds=50, seed=4)


def test_other_queries_are_an_error_and_no_queries_are_not() -> None:
    with pytest.raises(ValueError, match="same queries"):
        compare({"a": 1.0}, {"b": 1.0})
    assert compare({}, {}).p_value == 1.0
