"""Addresses of searches: read to clean values, written back to the same address."""

from __future__ import annotations

from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from searchapp.forms.search import SearchForm, SearchParameters


def read(address: str) -> tuple[SearchForm, SearchParameters]:
    form = SearchForm(QueryDict(address))
    form.is_valid()
    return form, form.parameters


def test_an_absent_instruction_differs_from_an_empty_one() -> None:
    assert read("q=a")[1].instruction is None
    assert read("q=a&instruction=")[1].instruction == ""


def test_several_values_of_a_key_mean_any_and_several_keys_mean_all() -> None:
    parameters = read("q=a&type=text/html&meta=year=2020&meta=year=2021&meta=author=Ada")[1]
    assert parameters.filters() == {
        "media_type": ["text/html"],
        "metadata": {"year": ["2020", "2021"], "author": ["Ada"]},
    }


def test_a_filter_without_a_value_is_an_error_in_words() -> None:
    form, _ = read("q=a&meta=author")
    assert form.non_field_errors() == ["“author” is no filter: write key=value."]


def test_comparisons_and_conditions_are_filters_that_all_must_hold() -> None:
    form, parameters = read('q=a&meta=year>=2024&meta=place != sea&meta={"$or":[{"a":"b"}]}')
    assert not form.errors
    assert parameters.filters() == {
        "where": {
            "$and": [
                {"year": {"$gte": "2024"}},
                {"place": {"$ne": "sea"}},
                {"$or": [{"a": "b"}]},
            ]
        }
    }
    assert read(parameters.query_string())[1] == parameters
    assert read("meta=note=x>y")[1].metadata == (("note", "x>y"),)
    assert read("meta=list:tags!=bird")[1].filters() == {"where": {"list:tags": {"$nin": ["bird"]}}}


def test_a_condition_that_cannot_be_read_is_an_error_in_words() -> None:
    for text, part in [
        ("{broken", "JSON cannot be read"),
        ('{"a": {"$like": "x"}}', "no operator"),
        ("list:tags>x", "only $in and $nin"),
        ("[" * 50, "write key=value"),
    ]:
        form, parameters = read(f"q=a&meta={text}")
        assert part in form.non_field_errors()[0] and parameters.conditions == ()


def test_odd_values_of_the_display_mean_the_default() -> None:
    parameters = read("q=a&view=x&order=y&page=-3&rows=7&trace=&wait=no")[1]
    assert parameters == SearchParameters(query="a")
    assert read("page=99999999999999")[1].page == 1000


def test_a_query_over_the_limit_says_how_long_it_is() -> None:
    form, _ = read("q=" + "x" * 4001)
    assert "The query has 4001 characters" in form.errors["q"][0]


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20).map(str.strip)


@given(
    st.builds(
        SearchParameters,
        query=text,
        instruction=st.none() | text,
        types=st.lists(text.filter(bool), max_size=3, unique=True).map(tuple),
        view=st.sampled_from(["list", "compare"]),
        order=st.sampled_from(["reranked", "first"]),
        page=st.integers(1, 1000),
        rows=st.sampled_from([10, 25, 100]),
        trace=st.none() | st.uuids(),
        wait=st.booleans(),
    )
)
def test_an_address_reads_back_to_what_was_written(parameters: SearchParameters) -> None:
    form, again = read(parameters.query_string())
    assert not form.errors
    assert again == parameters
