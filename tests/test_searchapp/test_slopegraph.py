"""The before/after picture's geometry, worked by hand."""

from __future__ import annotations

import pytest

from searchapp.search.slopegraph import FIRST_PAGE, ROW_HEIGHTS, TAIL, Entry, compare


def ordered(*ids: int) -> list[Entry]:
    return [Entry(id=each, title=f"t{each}", rank=rank) for rank, each in enumerate(ids, 1)]


def test_lines_run_from_the_middle_of_one_place_to_the_middle_of_the_other() -> None:
    graph = compare(ordered(1, 2, 3), ordered(3, 1, 2), rows=10)
    height = ROW_HEIGHTS[10]
    ends = {line.id: (line.before_y, line.after_y) for line in graph.lines}
    assert ends == {
        3: (2.5 * height, 0.5 * height),
        1: (0.5 * height, 1.5 * height),
        2: (1.5 * height, 2.5 * height),
    }
    assert graph.height == 3 * height


def test_directions_and_counts_say_what_moved() -> None:
    graph = compare(ordered(1, 2, 3), ordered(1, 3, 2), rows=10)
    assert {line.id: line.direction for line in graph.lines} == {1: "same", 3: "up", 2: "down"}
    assert (graph.risen, graph.fallen, graph.unchanged) == (1, 1, 1)
    assert [line.sign for line in graph.lines] == ["=", "▲1", "▼1"]


def test_what_comes_from_below_the_picture_enters_through_the_bottom() -> None:
    before = ordered(*range(1, 21))
    after = ordered(20, *range(1, 20))
    graph = compare(before, after, rows=10)
    riser = next(line for line in graph.lines if line.id == 20)
    assert riser.entered and not riser.shows_before and riser.shows_after
    assert riser.before_y == 10 * ROW_HEIGHTS[10] + TAIL
    leaver = next(line for line in graph.lines if line.id == 10)
    assert leaver.left and leaver.after_rank == 11
    assert graph.height == 10 * ROW_HEIGHTS[10] + TAIL
    assert len(graph.lines) == 11


def test_lists_of_different_things_show_new_and_gone() -> None:
    graph = compare(ordered(1, 2), ordered(2, 9), rows=10)
    assert {line.id: line.direction for line in graph.lines} == {2: "up", 9: "new", 1: "gone"}
    assert graph.lines[-1].sentence == "t1: rank 1 before, absent after, gone, off the first page"


def test_the_end_of_the_first_page_is_drawn_only_in_longer_pictures() -> None:
    places = ordered(*range(1, 31))
    assert compare(places, places, rows=10).divider_y is None
    assert compare(places, places, rows=25).divider_y == FIRST_PAGE * ROW_HEIGHTS[25]


def test_empty_lists_make_an_empty_picture() -> None:
    graph = compare([], [], rows=100)
    assert graph.lines == () and graph.height == 0


def test_an_unknown_number_of_rows_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match="rows 7"):
        compare([], [], rows=7)
