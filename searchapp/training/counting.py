"""What a collection has to learn from, counted without a single search."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from searchapp.models import Collection, Trace
from searchapp.models.judgments import RELEVANT_FROM, query_key
from searchapp.workbench import judging

# Below this the held-out queries could not tell a better reranker from chance.
MINIMUM_QUERIES = 30
MINIMUM_HELD_OUT = 10
HELD_OUT_SHARE = 0.25
# With fewer the interval of the comparison is wide.
COMFORTABLE_QUERIES = 200
# Of the log: the newest searches are read until so many different queries are found.
MOST_SEARCHES = 300
_MOST_READ = 5000
_LONGEST_QUERY = 500


@dataclass(frozen=True)
class GradedQuery:
    """`grades`: path -> the mean of its judges' grades, rounded, 0 to 3."""

    key: str
    text: str
    grades: Mapping[str, int]

    @property
    def has_relevant(self) -> bool:
        return any(grade >= RELEVANT_FROM for grade in self.grades.values())

    @property
    def has_both(self) -> bool:
        return self.has_relevant and any(g < RELEVANT_FROM for g in self.grades.values())


@dataclass(frozen=True)
class Counts:
    """`usable`: queries that can teach something, if what the first stage finds allows it."""

    judged: int
    relevant: int
    usable: int
    usable_if_unjudged_count: int
    judgments: int
    searches: int

    def usable_queries(self, unjudged: bool) -> int:
        return self.usable_if_unjudged_count if unjudged else self.usable


def graded_queries(collection: Collection) -> list[GradedQuery]:
    """Every judged query, in the order of their first judgment."""
    return [
        GradedQuery(key, text, {path: _mean(each) for path, each in given.items()})
        for key, text, given in judging.grades_given(collection)
    ]


def counts(collection: Collection) -> Counts:
    queries = graded_queries(collection)
    keys = {query.key for query in queries}
    return Counts(
        judged=len(queries),
        relevant=sum(query.has_relevant for query in queries),
        usable=sum(query.has_both for query in queries),
        usable_if_unjudged_count=sum(query.has_relevant for query in queries),
        judgments=sum(len(query.grades) for query in queries),
        searches=len(logged_queries(collection, keys)) if collection.train_on_searches else 0,
    )


def logged_queries(collection: Collection, without: Set[str] = frozenset()) -> list[str]:
    """What people searched for lately, each query once, the newest first; none where the owner has
    not allowed it. Searches with a filter or an instruction of their own are left out."""
    if not collection.train_on_searches:
        return []
    asked = (
        Trace.objects.filter(collection=collection, instruction=None, filters={})
        .order_by("-pk")
        .values_list("query", flat=True)[:_MOST_READ]
    )
    found: dict[str, str] = {}
    for text in asked.iterator():
        key = query_key(text)
        if key not in without and 0 < len(text.strip()) <= _LONGEST_QUERY:
            found.setdefault(key, text)
        if len(found) == MOST_SEARCHES:
            break
    return list(found.values())


def too_few(found: Counts, unjudged: bool) -> str:
    """Why there is not enough to train on yet, or ""."""
    usable = found.usable_queries(unjudged)
    if usable >= MINIMUM_QUERIES:
        return ""
    if not found.judged:
        return (
            f"A training needs {MINIMUM_QUERIES} judged queries, and nothing is judged yet. "
            "Search, and give hits their grades."
        )
    if not found.relevant:
        return (
            f"None of the {found.judged} judged {_queries(found.judged)} has a relevant document: "
            "there is nothing to learn what is good from."
        )
    if unjudged or found.judged < MINIMUM_QUERIES:
        return (
            f"A training needs {MINIMUM_QUERIES} judged queries with a relevant document; there "
            f"{'is' if usable == 1 else 'are'} {usable}."
        )
    return (
        f"A training needs {MINIMUM_QUERIES} queries with both a relevant document and one that is "
        f"not; there {'is' if usable == 1 else 'are'} {usable}. Judge wrong hits too, or count "
        "what has no judgment as not relevant."
    )


def warnings(found: Counts, unjudged: bool) -> list[str]:
    """What an owner should know before starting; sentences."""
    said = []
    usable = found.usable_queries(unjudged)
    if usable < COMFORTABLE_QUERIES:
        held_out = held_out_count(usable)
        said.append(
            f"The comparison will rest on {held_out} queries. So few rarely tell a better reranker "
            f"from chance; from {COMFORTABLE_QUERIES} judged queries on they usually do."
        )
    if unjudged and found.usable < found.usable_if_unjudged_count:
        said.append(
            "Documents without a judgment count as not relevant. Where good documents are not "
            "judged yet, the reranker learns to dislike them."
        )
    return said


def held_out_count(queries: int) -> int:
    return max(MINIMUM_HELD_OUT, round(queries * HELD_OUT_SHARE))


def _mean(grades: list[int]) -> int:
    """Rounded, halves up."""
    return int(sum(grades) / len(grades) + 0.5)


def _queries(count: int) -> str:
    return "query" if count == 1 else "queries"
