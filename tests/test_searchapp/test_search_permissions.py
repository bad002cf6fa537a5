"""No route shows a document of a collection that its reader may not see."""

from __future__ import annotations

import itertools
import random

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchapp.models import Collection, Document, Membership, Passage, Role, Trace
from searchapp.search import display, lexical, pipeline, traces, vectors
from searchapp.search.filters import read_filters
from searchapp.search.result import SearchResult
from tests.fakes import FakeEmbedder, FakeReranker, hashed_vector
from tests.shelves import add_document, make_collection

NUMBERS = itertools.count()
PEOPLE = ["nobody", "ann", "bob", "gone", "root"]


@st.composite
def worlds(draw):
    """(is public?, {person: role}) per collection, and who is active."""
    return draw(
        st.lists(
            st.tuples(
                st.booleans(),
                st.dictionaries(st.sampled_from(["ann", "bob", "gone"]), st.sampled_from(Role)),
            ),
            min_size=1,
            max_size=3,
        )
    )


def may_see(person: str, is_public: bool, roles: dict) -> bool:
    return is_public or person == "root" or (person in roles and person != "gone")


def make_people(tag: int) -> dict:
    users = get_user_model().objects
    return {
        "nobody": AnonymousUser(),
        "ann": users.create_user(f"ann{tag}"),
        "bob": users.create_user(f"bob{tag}"),
        "gone": users.create_user(f"gone{tag}", is_active=False),
        "root": users.create_superuser(f"root{tag}"),
    }


def make_world(tag: int, world, people) -> list[tuple[Collection, bool, dict]]:
    made = []
    for number, (is_public, roles) in enumerate(world):
        collection = make_collection(f"c{tag}-{number}", is_public=is_public)
        for person, role in roles.items():
            Membership.objects.create(collection=collection, user=people[person], role=role)
        add_document(collection, f"Secret of {number}", ["oak acorns", "oak timber"])
        made.append((collection, is_public, roles))
    return made


@pytest.mark.django_db
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(world=worlds(), seed=st.integers(0, 99))
def test_random_users_and_roles_never_see_a_private_document(db: None, client, world, seed) -> None:
    tag = next(NUMBERS)
    people = make_people(tag)
    chance = random.Random(seed)
    for collection, is_public, roles in make_world(tag, world, people):
        document = Document.objects.get(collection=collection)
        able = [p for p in PEOPLE if p != "gone" and may_see(p, is_public, roles)]
        searcher = chance.choice(able)
        reranker = FakeReranker()
        result = pipeline.search(
            "oak", collection, user=people[searcher], embedder=FakeEmbedder(), reranker=reranker
        )
        assert len(result.hits) == 2
        trace = traces.record(result, people[searcher])
        for person in PEOPLE:
            user, allowed = people[person], may_see(person, is_public, roles)
            found = pipeline.search(
                "oak", collection, user=user, embedder=FakeEmbedder(), reranker=reranker,
                filters=chance.choice([None, {"media_type": ["text/plain"]}]),
            )  # fmt: skip
            assert len(found.hits) == (2 if allowed else 0), person
            assert_legs(collection, user, allowed)
            assert Document.objects.visible_to(user).filter(pk=document.pk).exists() == allowed
            own = person in {searcher, "root"} or searcher == "nobody"
            assert_trace(trace, user, allowed and own)
            assert_pages(client, trace, document, user, allowed, allowed and own)


def assert_legs(collection: Collection, user, allowed: bool) -> None:
    """Also asked directly, past the pipeline's own checks."""
    for filters in (read_filters(None), read_filters({"media_type": "text/plain"})):
        words = lexical.lexical_candidates(collection, user, ["oak"], 9, filters=filters)
        near = vectors.dense_candidates(
            collection, collection.active_generation, user, hashed_vector("oak"), 9, filters=filters
        )
        assert bool(words) == bool(near) == allowed


def assert_trace(trace: Trace, user, allowed: bool) -> None:
    if allowed:
        assert traces.load(trace.uid, user).pk == trace.pk
        return
    with pytest.raises(Trace.DoesNotExist):
        traces.load(trace.uid, user)


def assert_pages(client, trace: Trace, document: Document, user, reads: bool, own: bool) -> None:
    if user.is_authenticated:
        client.force_login(user)
    else:
        client.logout()
    routes = {
        reverse("document", args=[document.uid]): reads,
        reverse("trace", args=[trace.uid]): own,
        reverse("trace", args=[trace.uid]) + "?missing=Secret": own,
        reverse("rerank", args=[trace.uid]): own,
        reverse("search") + f"?q=oak&collection={document.collection.slug}": reads,
    }
    for address, allowed in routes.items():
        answer = client.get(address)
        assert (answer.status_code == 200) == allowed, (address, user, answer.status_code)
        if not allowed:
            assert document.title.encode() not in answer.content
    cancelled = client.post(reverse("rerank_cancel", args=[trace.uid]))
    # A superuser reads every search and ends none but their own.
    its_own = trace.user_id == (user.pk if user.is_active else None)
    assert (cancelled.status_code == 204) == (own and its_own), (user, cancelled.status_code)


@pytest.mark.django_db
def test_rows_of_a_search_hold_only_passages_of_its_collection() -> None:
    private = make_collection("private", is_public=False)
    add_document(private, "Secret", ["oak secret"])
    public = make_collection("public")
    add_document(public, "Open", ["oak open"])
    result = pipeline.search("oak", public, user=AnonymousUser(), embedder=FakeEmbedder())
    rows = display.rows(result.shown, result.query, "en")
    assert [row.document_title for row in rows] == ["Open"]
    assert set(Passage.objects.visible_to(AnonymousUser())) == set(public.passages.all())
    assert SearchResult.from_json(result.as_json()).collection_id == public.pk


@pytest.mark.django_db
def test_a_right_withdrawn_closes_old_searches_too() -> None:
    ann = get_user_model().objects.create_user("ann")
    collection = make_collection("club", is_public=False)
    membership = Membership.objects.create(collection=collection, user=ann)
    add_document(collection, "Secret", ["oak"])
    trace = traces.record(pipeline.search("oak", collection, user=ann), ann)
    assert traces.load(trace.uid, ann)
    membership.delete()
    with pytest.raises(Trace.DoesNotExist):
        traces.load(trace.uid, ann)
