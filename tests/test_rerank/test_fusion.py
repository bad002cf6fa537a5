"""Fusion: by hand, at the edges, and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.ranking.fusion import fuse_reciprocal_ranks, fuse_weighted, ordered, scaled

legs = st.dictionaries(st.integers(1, 30), st.floats(-50, 50), max_size=12)


def test_weighted_by_hand() -> None:
    # lexical scaled: 1 -> 1, 2 -> .5, 3 -> 0; dense scaled: 2 -> 1, 4 -> 0
    fused = fuse_weighted({1: 9.0, 2: 7.0, 3: 5.0}, {2: 0.8, 4: 0.2}, dense_weight=0.7)
    assert fused == pytest.approx({2: 0.7 + 0.15, 1: 0.3, 3: 0.0, 4: 0.0})
    assert list(fused) == [2, 1, 3, 4]


def test_one_candidate_and_equal_scores_count_fully() -> None:
    assert scaled({5: 0.1}) == {5: 1.0}
    assert scaled({5: 2.0, 6: 2.0}) == {5: 1.0, 6: 1.0}
    assert scaled({}) == {}


def test_an_empty_leg_leaves_the_other_its_full_range() -> None:
    assert fuse_weighted({}, {1: 3.0, 2: 1.0}, 0.7) == {1: 1.0, 2: 0.0}
    assert fuse_weighted({1: 3.0, 2: 1.0}, {}, 0.7) == {1: 1.0, 2: 0.0}
    assert fuse_weighted({}, {}, 0.7) == {}


def test_a_weight_outside_its_range_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1\.5"):
        fuse_weighted({1: 1.0}, {1: 1.0}, 1.5)


def test_reciprocal_ranks_by_hand() -> None:
    # k = 1: id 7 is first and second: 1/2 + 1/3; the largest possible is 2 * 1/2
    fused = fuse_reciprocal_ranks([[7, 8], [9, 7]], k=1)
    assert fused == pytest.approx({7: 5 / 6, 9: 1 / 2, 8: 1 / 3})
    assert list(fused) == [7, 9, 8]
    assert fuse_reciprocal_ranks([[], [3]]) == {3: 1.0}
    assert fuse_reciprocal_ranks([[], []]) == {}


def test_ties_fall_to_the_smaller_id() -> None:
    assert list(ordered({9: 1.0, 3: 1.0, 5: 2.0})) == [5, 3, 9]


@given(legs, legs, st.floats(0, 1))
def test_weighted_scores_lie_in_0_1_and_order_does_not_depend_on_input_order(
    lexical: dict[int, float], dense: dict[int, float], weight: float
) -> None:
    fused = fuse_weighted(lexical, dense, weight)
    assert set(fused) == set(lexical) | set(dense)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in fused.values())
    backward = fuse_weighted(dict(reversed(lexical.items())), dict(reversed(dense.items())), weight)
    assert list(backward.items()) == list(fused.items())


@given(st.lists(st.lists(st.integers(1, 20), unique=True, max_size=10), max_size=3))
def test_reciprocal_ranks_lie_in_0_1(rankings: list[list[int]]) -> None:
    fused = fuse_reciprocal_ranks(rankings)
    assert all(0 < score <= 1 + 1e-9 for score in fused.values())
