"""The BM25 index against rank_bm25, through every history of adds, deletes and merges."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter

import numpy as np
import pytest
from django.conf import settings
from django.db import connection, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from rerank.ranking.analysis import terms
from searchapp.models import Collection, Posting, Segment
from searchapp.search import index, lexical, packing, segments
from searchapp.search.access import operator
from searchapp.search.lexical import lexical_candidates

NUMBERS = itertools.count()
WORDS = ["ash", "birch", "cedar", "elm", "fir", "gum", "holly", "ivy", "oak", "pine"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(texts, min_size=1, max_size=6)),
        st.tuples(st.just("update"), st.lists(texts, min_size=1, max_size=3)),
        st.tuples(st.just("delete"), st.integers(1, 5)),
        st.tuples(st.just("merge"), st.booleans()),
    ),
    min_size=1,
    max_size=12,
)


def fresh_collection(slug: str = "trees") -> Collection:
    return Collection.objects.create_with_owner(slug=slug, name="Trees")


def play(collection: Collection, history: list, seed: int) -> dict[int, str]:
    """Applies the steps; the live passages as they should be."""
    live: dict[int, str] = {}
    next_id = 1
    chance = random.Random(seed)
    for step, argument in history:
        if step == "add":
            new = dict(enumerate(argument, next_id))
            next_id += len(new)
            segments.index_passages(collection, list(new.items()))
            live |= new
        elif step == "update":
            chosen = chance.sample(sorted(live), min(len(live), len(argument)))
            changed = dict(zip(chosen, argument, strict=False))
            with transaction.atomic():
                assert segments.delete_passages(collection, changed) == len(changed)
                segments.index_passages(collection, list(changed.items()))
            live |= changed
        elif step == "delete":
            gone = chance.sample(sorted(live), min(len(live), argument))
            segments.delete_passages(collection, [*gone, 10**9])
            live = {key: text for key, text in live.items() if key not in gone}
        else:
            segments.merge_segments(collection, everything=argument)
    return live


def okapi_scores(live: dict[int, str], query: list[str], k1: float, b: float) -> dict[int, float]:
    ids = sorted(live)
    corpus = [terms(live[key], "en") for key in ids]
    if not any(corpus):
        return {}
    scores = BM25Okapi(corpus, k1=k1, b=b).get_scores(query)
    return {
        key: float(score)
        for key, score, words in zip(ids, scores, corpus, strict=True)
        if set(words) & set(query)
    }


def lucene_scores(live: dict[int, str], query: list[str], k1: float, b: float) -> dict[int, float]:
    """Straight from the definition, one passage and one term after the other."""
    corpus = {key: Counter(terms(text, "en")) for key, text in live.items()}
    average = sum(sum(words.values()) for words in corpus.values()) / max(len(corpus), 1)
    scores: dict[int, float] = {}
    for key, words in corpus.items():
        for term in query:
            if term in words:
                df = sum(term in other for other in corpus.values())
                idf = np.log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
                norm = k1 * (1 - b + b * sum(words.values()) / average)
                scores[key] = scores.get(key, 0.0) + idf * words[term] / (words[term] + norm)
    return scores


@pytest.mark.django_db
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    history=steps,
    query=st.lists(st.sampled_from([*WORDS, "yew"]), min_size=1, max_size=5),
    seed=st.integers(0, 999),
)
def test_scores_equal_the_oracles_after_any_history(db: None, history, query, seed) -> None:
    collection = fresh_collection(f"trees-{next(NUMBERS)}")
    live = play(collection, history, seed)
    query = terms(" ".join(query), "en")
    oracles = [("okapi", 1.5, 0.75, okapi_scores), ("lucene", 0.9, 0.4, lucene_scores)]
    for variant, k1, b, oracle in oracles:
        expected = oracle(live, query, k1, b)
        found = lexical_candidates(collection, operator(), query, 1000, variant=variant, k1=k1, b=b)
        assert dict(found) == pytest.approx(expected, abs=1e-6)
        assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.django_db
def test_ties_at_the_depth_fall_to_the_smaller_id() -> None:
    collection = fresh_collection()
    segments.index_passages(collection, [(key, "oak") for key in (9, 3, 7)])
    segments.index_passages(collection, [(key, "oak") for key in (8, 1)])
    found = lexical_candidates(collection, operator(), ["oak"], 3)
    assert [key for key, _ in found] == [1, 3, 7]


@pytest.mark.django_db
def test_a_query_of_three_hundred_words_works() -> None:
    collection = fresh_collection()
    segments.index_passages(collection, [(1, "oak pine"), (2, "elm")])
    query = [WORDS[i % 9] for i in range(300)]
    assert {key for key, _ in lexical_candidates(collection, operator(), query, 10)} == {1, 2}


@pytest.mark.django_db
def test_a_term_that_stands_twice_in_the_query_counts_twice() -> None:
    collection = fresh_collection()
    segments.index_passages(collection, [(1, "oak pine"), (2, "ivy elm")])
    once = dict(lexical_candidates(collection, operator(), ["oak"], 10))
    twice = dict(lexical_candidates(collection, operator(), ["oak", "oak"], 10))
    assert twice[1] == pytest.approx(2 * once[1])


@pytest.mark.django_db
def test_a_rolled_back_deletion_leaves_no_trace_in_the_caches() -> None:
    collection = fresh_collection()
    segments.index_passages(collection, [(1, "oak"), (2, "oak"), (3, "oak")])
    with transaction.atomic():
        segments.delete_passages(collection, [1])
        assert len(lexical_candidates(collection, operator(), ["oak"], 10)) == 2
        transaction.set_rollback(True)
    segments.delete_passages(collection, [2])
    assert [key for key, _ in lexical_candidates(collection, operator(), ["oak"], 10)] == [1, 3]


@pytest.mark.django_db
def test_merging_keeps_few_segments_and_drops_the_deleted() -> None:
    collection = fresh_collection()
    for key in range(1, 200):
        segments.index_passages(collection, [(key, "oak ash")])
        if key % 5 == 0:
            segments.merge_segments(collection)
    assert Segment.objects.filter(collection=collection).count() <= 12
    segments.delete_passages(collection, range(1, 150))
    while segments.merge_segments(collection):
        pass
    stored = Segment.objects.filter(collection=collection)
    assert sum(each.passage_count - each.deleted_count for each in stored) == 50
    assert sum(each.passage_count for each in stored) < 70
    alive = set(stored.values_list("pk", flat=True))
    assert set(Posting.objects.values_list("segment_id", flat=True)) == alive
    segments.delete_passages(collection, range(150, 200))
    segments.merge_segments(collection, everything=True)
    assert [(e.passage_count, e.deleted_count) for e in stored.all()] == []
    assert not Posting.objects.filter(collection=collection).exists()


@pytest.mark.django_db
def test_an_average_over_a_segment_with_deletions_counts_live_terms_only() -> None:
    collection = fresh_collection()
    live = play(collection, [("add", ["oak elm", "ash", "ivy ivy", "oak"])], 0)
    segments.delete_passages(collection, [3])
    del live[3]
    expected = okapi_scores(live, ["oak"], 1.5, 0.75)
    found = lexical_candidates(collection, operator(), ["oak"], 9, variant="okapi", k1=1.5, b=0.75)
    assert dict(found) == pytest.approx(expected, abs=1e-9)


def test_packing_and_unpacking_are_inverse() -> None:
    packed = packing.pack_terms([["b", "a", "b"], [], ["b"]])
    assert list(packed.terms) == ["a", "b"]
    assert packed.bounds.tolist() == [0, 1, 3]
    assert packed.ordinals.tolist() == [0, 0, 2]
    assert packed.frequencies.tolist() == [1, 2, 1]
    flags = np.array([False, True] * 9)
    assert packing.unpack_flags(packing.pack_flags(flags), 18).tolist() == flags.tolist()


@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_searches_during_adds_deletes_and_merges_see_one_whole_state() -> None:
    """Every add and delete moves a pair of passages, so a whole state holds pairs only."""
    collection = fresh_collection()
    user = operator()
    segments.index_passages(collection, [(key, "oak") for key in range(1, 41)])
    done = threading.Event()
    problems: list[str] = []

    def guarded(work) -> None:
        try:
            work()
        except Exception as error:
            problems.append(repr(error))
        finally:
            connection.close()

    def search() -> None:
        while not done.is_set():
            index.forget_cached()
            found = {key for key, _ in lexical_candidates(collection, user, ["oak"], 10_000)}
            if len(found) % 2 or any(
                (key + 1 if key % 2 else key - 1) not in found for key in found
            ):
                problems.append(f"half a state: {sorted(found)}")

    def merge() -> None:
        while not done.is_set():
            segments.merge_segments(collection, everything=True)

    def add() -> None:
        for key in range(101, 201, 2):
            segments.index_passages(collection, [(key, "oak"), (key + 1, "oak")])

    def delete() -> None:
        for key in range(1, 41, 2):
            assert segments.delete_passages(collection, [key, key + 1]) == 2

    background = [threading.Thread(target=guarded, args=[each]) for each in (search, search, merge)]
    writers = [threading.Thread(target=guarded, args=[each]) for each in (add, delete)]
    for thread in [*background, *writers]:
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    for thread in background:
        thread.join(60)
    assert problems == []
    found = {key for key, _ in lexical_candidates(collection, user, ["oak"], 10_000)}
    assert found == set(range(101, 201))


@pytest.mark.django_db
@pytest.mark.parametrize("variant", ["lucene", "okapi"])
def test_pruning_common_words_changes_nothing_of_the_best(monkeypatch, variant) -> None:
    chance = random.Random(5)
    shares = [1 / (rank + 1) for rank in range(len(WORDS))]
    collection = fresh_collection()
    passages = [
        (key, " ".join(chance.choices(WORDS, shares, k=chance.randint(1, 9))))
        for key in range(1, 401)
    ]
    for start in range(0, 400, 100):
        segments.index_passages(collection, passages[start : start + 100])
    segments.delete_passages(collection, range(30, 90))
    for _ in range(60):
        query = terms(" ".join(chance.choices([*WORDS, "ash"], k=chance.randint(1, 6))), "en")
        depth = chance.choice([1, 3, 20])
        monkeypatch.setattr(lexical, "PRUNE_FROM", 10**9)
        whole = lexical_candidates(collection, operator(), query, depth, variant=variant)
        monkeypatch.setattr(lexical, "PRUNE_FROM", 0)
        pruned = lexical_candidates(collection, operator(), query, depth, variant=variant)
        assert pruned == whole
