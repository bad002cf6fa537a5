"""The graphs of comparisons: what they promise about degrees, connection and repetition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.zelo.pairing import (
    all_pairs,
    component_labels,
    gold_pairs,
    graph_facts,
    is_strongly_connected,
    random_cycles,
    random_pairs,
    star,
)


@given(st.integers(0, 40), st.integers(2, 12), st.integers(0, 2**31))
def test_cycles_connect_everything_and_repeat_nothing(
    documents: int, degree: int, seed: int
) -> None:
    pairs = random_cycles(documents, degree, seed)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    facts = graph_facts(documents, pairs)
    assert facts.is_connected
    if documents:
        assert facts.largest_degree <= max(degree, 0)
        # One document of an odd number may be left out of the matching of an odd degree.
        assert facts.smallest_degree >= min(degree, documents - 1) - 2


@pytest.mark.parametrize("degree", [2, 4, 8, 16, 32])
def test_a_hundred_documents_all_have_the_degree_asked_for(degree: int) -> None:
    facts = graph_facts(100, random_cycles(100, degree, 7))
    assert (facts.smallest_degree, facts.largest_degree) == (degree, degree)
    assert facts.pairs == 50 * degree


def test_eight_comparisons_each_keep_any_two_of_a_hundred_within_five_steps() -> None:
    diameters = [graph_facts(100, random_cycles(100, 8, seed)).diameter for seed in range(20)]
    assert max(d for d in diameters if d is not None) <= 5


@pytest.mark.parametrize(
    ("documents", "expected"),
    [(0, []), (1, []), (2, [[0, 1]]), (3, [[0, 1], [0, 2], [1, 2]])],
)
def test_the_smallest_queries_get_every_pair_once(documents: int, expected: list[object]) -> None:
    assert random_cycles(documents, 8, 0).tolist() == expected


def test_a_degree_that_reaches_everybody_gives_all_pairs() -> None:
    assert np.array_equal(random_cycles(9, 8, 3), all_pairs(9))
    assert len(all_pairs(9)) == 36


def test_an_odd_degree_adds_a_matching() -> None:
    facts = graph_facts(20, random_cycles(20, 3, 1))
    assert (facts.smallest_degree, facts.largest_degree) == (3, 3)


def test_a_degree_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="not connected"):
        random_cycles(10, 1, 0)


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    first = random_cycles(50, 8, 1)
    assert np.array_equal(first, random_cycles(50, 8, 1))
    assert not np.array_equal(first, random_cycles(50, 8, 2))


def test_random_pairs_are_different_and_never_more_than_there_are() -> None:
    assert len(np.unique(random_pairs(30, 100, 5), axis=0)) == 100
    assert len(random_pairs(5, 100, 5)) == 10
    assert random_pairs(1, 3, 0).shape == (0, 2)


def test_gold_pairs_are_different_and_favour_the_top() -> None:
    pairs = gold_pairs(100, 400, 3)
    assert len(np.unique(pairs, axis=0)) == 400
    # Evenly drawn pairs would have a mean place of 49.5.
    assert pairs.mean() < 35
    assert pairs.max() > 80
    assert len(gold_pairs(100, 1, 0)) == 1
    assert [len(gold_pairs(n, 5, 0)) for n in (0, 1, 2, 3, 4)] == [0, 0, 1, 3, 5]


def test_a_star_has_paths_of_two_and_unequal_degrees() -> None:
    facts = graph_facts(40, star(40, 1, 0))
    assert (facts.diameter, facts.smallest_degree, facts.largest_degree) == (2, 1, 39)
    # Two hubs: 38 others times 2, and the hubs themselves.
    assert len(star(40, 2, 0)) == 77


def test_facts_count_unconnected_parts_and_give_no_diameter() -> None:
    facts = graph_facts(5, np.array([[0, 1], [2, 3]]))
    assert (facts.components, facts.diameter, facts.is_connected) == (3, None, False)
    assert component_labels(5, np.array([[0, 1], [2, 3]])).tolist() == [0, 0, 1, 1, 2]
    with pytest.raises(ValueError, match="outside"):
        graph_facts(2, np.array([[0, 2]]))


def test_winning_in_a_circle_connects_strongly_and_in_a_row_does_not() -> None:
    assert is_strongly_connected(3, np.array([[0, 1], [1, 2], [2, 0]]))
    assert not is_strongly_connected(3, np.array([[0, 1], [1, 2], [0, 2]]))
