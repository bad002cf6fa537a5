"""What is read by SQL that was composed once is what the ORM reads."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.forms.models import model_to_dict

from searchapp.api import collection_names
from searchapp.api.auth import Caller
from searchapp.models import ApiKey, Collection, Membership, Role, Scope
from searchapp.models.api_keys import digest
from searchapp.search.vectors import ensure_generation
from tests.callers import make_key

pytestmark = pytest.mark.django_db


def columns(row: object) -> dict[str, object]:
    fields = type(row)._meta.concrete_fields  # type: ignore[attr-defined]
    return {field.attname: getattr(row, field.attname) for field in fields}


def caller(user: User, *collections: Collection) -> Caller:
    plain = make_key(user, collections=collections or None)[1]
    key = ApiKey.objects.of_digest(digest(plain))
    assert key is not None
    return Caller(key.holder(), key, frozenset(Scope))


@pytest.fixture
def birds() -> Collection:
    collection = Collection.objects.create_with_owner(
        slug="birds", name="Birds", suggested_queries=["heron", "owl"]
    )
    ensure_generation(collection)
    return Collection.objects.get(pk=collection.pk)


def test_a_key_and_its_owner_have_every_column() -> None:
    olive = User.objects.create_user("olive", "olive@example.org", first_name="Olive")
    made, plain = make_key(olive, Scope.SEARCH, Scope.JUDGE)
    found = ApiKey.objects.of_digest(digest(plain))
    assert found is not None
    assert columns(found) == columns(ApiKey.objects.get(pk=made.pk))
    assert columns(found.owner) == columns(User.objects.get(pk=olive.pk))
    assert ApiKey.objects.of_digest("0" * 64) is None


@pytest.mark.parametrize("who", ["superuser", "owner", "superuser by key", "owner by key"])
def test_a_collection_to_write_in_has_every_column(birds: Collection, who: str) -> None:
    olive = User.objects.create_user("olive", is_superuser=who.startswith("superuser"))
    Membership.objects.create(collection=birds, user=olive, role=Role.OWNER)
    named = [birds] if who.endswith("key") else []
    found = collection_names.named(caller(olive, *named), "birds", Scope.INGEST)
    assert isinstance(found, Collection)
    assert columns(found) == columns(birds)
    assert found.suggested_queries == ["heron", "owl"]
    assert columns(found.active_generation) == columns(birds.active_generation)
    assert model_to_dict(found) == model_to_dict(birds)


def test_each_caller_gets_their_own(birds: Collection) -> None:
    """One composed query serves all callers of a kind, whoever came first."""
    people = [User.objects.create_user(name) for name in ("ann", "bob", "cid")]
    own = []
    for person in people[:2]:
        collection = Collection.objects.create_with_owner(
            slug=person.username, name="x", user=person
        )
        Collection.objects.filter(pk=collection.pk).update(api_name="notes")
        own.append(collection)
    for person, collection in zip(people, own, strict=False):
        found = collection_names.named(caller(person), "notes", Scope.INGEST)
        assert isinstance(found, Collection) and found.pk == collection.pk
        assert getattr(collection_names.named(caller(person), "birds", Scope.INGEST), "status", 0)
    refused = collection_names.named(caller(people[2]), "notes", Scope.INGEST)
    assert getattr(refused, "status", 0) == 404
    # A key for one collection does not open the owner's other one.
    other = Collection.objects.create_with_owner(slug="other", name="x", user=people[0])
    narrow = caller(people[0], own[0])
    assert isinstance(collection_names.named(narrow, "notes", Scope.INGEST), Collection)
    assert getattr(collection_names.named(narrow, other.slug, Scope.INGEST), "status", 0) == 404
