"""The tuning page: nothing typed is lost, previews compare, versions change with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from searchapp.engine import remote
from searchapp.models import Collection, SavedQuery, SearchConfig, Trace
from searchapp.search import configs
from tests.fakes import FakeEmbedder, FakeReranker
from tests.people import People, make_people
from tests.shelves import add_document, make_collection


@pytest.fixture
def birds(db: None) -> Collection:
    collection = make_collection("birds", is_public=False)
    for number in range(1, 13):
        add_document(collection, f"Heron {number}", [f"heron {'marsh ' * number}"])
    return collection


@pytest.fixture
def people(birds: Collection) -> People:
    return make_people(birds)


@pytest.fixture
def client(people: People) -> Client:
    return people.client("owner")


@pytest.fixture
def reranker(monkeypatch: pytest.MonkeyPatch) -> FakeReranker:
    fake = FakeReranker()
    monkeypatch.setattr(remote, "reranker", lambda: fake)
    monkeypatch.setattr(remote, "embedder", FakeEmbedder)
    return fake


URL = "/collections/birds/tuning/"


def typed(client: Client, **changes: Any) -> dict[str, Any]:
    """What the browser would send from the page as it is now, with some fields changed."""
    context = client.get(URL).context
    form = context["form"]
    data = {name: form[name].value() for name in form.fields}
    data = {name: "" if value is None else value for name, value in data.items()}
    return {**data, "seen": context["seen"], "active": context["active"].pk, **changes}


def draft_of(collection: Collection) -> SearchConfig:
    draft = configs.open_draft(collection)
    assert draft is not None
    return draft


def test_looking_at_the_page_makes_no_draft_and_saving_does(
    birds: Collection, client: Client
) -> None:
    assert client.get(URL).status_code == 200
    assert configs.open_draft(birds) is None
    data = typed(
        client,
        action="save",
        instruction="Prefer\r\nmarshes.",
        term=["PTO", "", "SLA"],
        meaning=["paid  time off", "", "service level"],
        threshold="0",
    )
    assert client.post(URL, data).status_code == 302
    draft = draft_of(birds)
    assert draft.instruction == "Prefer\nmarshes."
    assert draft.glossary == [
        {"term": "PTO", "meaning": "paid time off"},
        {"term": "SLA", "meaning": "service level"},
    ]
    assert draft.threshold == 0
    page = client.get(URL).content.decode()
    assert "paid time off" in page
    assert page.count('name="term"') == 2 + 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dense_weight": "7"}, "must be a number from 0 to 1"),
        ({"dense_weight": "much"}, "This is no number"),
        ({"lexical_depth": "0", "dense_depth": "0"}, "at least one leg"),
        ({"rerank_depth": ""}, "Write a number here"),
        ({"term": ["PTO"], "meaning": [""]}, "both a term and its meaning"),
        ({"model": "gpt"}, "Select a valid choice"),
    ],
)
def test_a_wrong_value_is_marked_and_everything_typed_stays(
    birds: Collection, client: Client, changes: dict[str, Any], sentence: str
) -> None:
    data = typed(client, action="save", instruction="Long thought <b>text</b>.", **changes)
    response = client.post(URL, data)
    page = response.content.decode()
    assert response.status_code == 422
    assert sentence in page
    assert "Long thought &lt;b&gt;text&lt;/b&gt;." in page
    assert draft_of(birds).instruction == ""


def test_a_draft_saved_by_another_owner_is_not_overwritten_unasked(
    birds: Collection, client: Client, people: People
) -> None:
    mine = typed(client, action="save", instruction="mine")
    other = people.client("superuser")
    other.post(URL, typed(other, action="save", instruction="theirs"))
    response = client.post(URL, mine)
    assert response.status_code == 422
    page = response.content.decode()
    assert "Somebody saved this draft in the meantime" in page
    assert "mine" in page
    assert draft_of(birds).instruction == "theirs"
    client.post(URL, {**mine, "seen": response.context["seen"]})
    assert draft_of(birds).instruction == "mine"


def test_every_button_of_the_draft_saves_it_first(birds: Collection, client: Client) -> None:
    client.post(URL, typed(client, action="add-query", text="heron marsh", instruction="one"))
    query = SavedQuery.objects.get()
    assert draft_of(birds).instruction == "one"
    response = client.post(URL, typed(client, show=query.pk, instruction="two"))
    assert response.url == f"{URL}?query={query.pk}#preview"
    assert draft_of(birds).instruction == "two"
    client.post(URL, typed(client, remove=query.pk, instruction="three"))
    assert draft_of(birds).instruction == "three"
    assert not SavedQuery.objects.exists()


def test_a_saved_query_is_kept_once_and_typing_one_before_saving_keeps_it(
    birds: Collection, client: Client
) -> None:
    for action in ("add-query", "save"):
        client.post(URL, typed(client, action=action, text="  heron   marsh "))
    assert [query.text for query in birds.saved_queries.all()] == ["heron marsh"]
    assert client.post(URL, typed(client, action="add-query", text="x" * 4001)).status_code == 422


def test_the_preview_compares_the_active_version_with_the_draft(
    birds: Collection, client: Client, reranker: FakeReranker
) -> None:
    query = SavedQuery.objects.create(collection=birds, text="heron marsh")
    client.post(URL, typed(client, action="save", rerank_depth="0"))
    response = client.get(f"{URL}?query={query.pk}")
    shown = response.context["preview"]
    assert [hit.rank for hit in shown.before.shown] == list(range(1, 13))
    assert shown.before.rerank.status == "ok"
    assert shown.after.rerank.status == "off"
    # The fake turns the order round, the draft leaves it: what was first is beyond the tenth.
    assert (shown.places, shown.shared) == (10, 8)
    page = response.content.decode()
    assert "8 of 10" in page
    assert "Active: version 1" in page
    assert "Draft: version 2" in page
    assert not Trace.objects.exists()
    assert draft_of(birds).frozen_at is None


def test_equal_versions_are_searched_once_and_said_to_be_the_same(
    birds: Collection, client: Client, reranker: FakeReranker
) -> None:
    query = SavedQuery.objects.create(collection=birds, text="heron marsh")
    page = client.get(f"{URL}?query={query.pk}&rows=25").content.decode()
    assert "are the same in the same order" in page
    assert len(reranker.submitted) == 1


@pytest.mark.parametrize("status", ["late", "unavailable"])
def test_a_reranker_that_does_not_answer_leaves_a_sentence(
    birds: Collection, client: Client, reranker: FakeReranker, status: Any
) -> None:
    reranker.status, reranker.reason = status, "The rerank worker is away."
    query = SavedQuery.objects.create(collection=birds, text="heron marsh")
    client.post(URL, typed(client, action="save", dense_weight="0.1"))
    page = client.get(f"{URL}?query={query.pk}").content.decode()
    assert "Compared in first-stage order: The rerank worker is away." in page


def test_nothing_found_is_said_so(
    birds: Collection, client: Client, reranker: FakeReranker
) -> None:
    query = SavedQuery.objects.create(collection=birds, text="zebra")
    client.post(URL, typed(client, action="save", dense_depth="0"))
    birds.refresh_from_db()
    configs.activate(draft_of(birds), None, "words only")
    page = client.get(f"{URL}?query={query.pk}").content.decode()
    assert "Neither version finds anything" in page


def test_activation_asks_for_a_reason_and_records_it(
    birds: Collection, client: Client, people: People
) -> None:
    data = typed(client, action="activate", instruction="Prefer marshes.")
    refused = client.post(URL, data)
    assert refused.status_code == 422
    assert "Give a reason" in refused.content.decode()
    assert draft_of(birds).instruction == "Prefer marshes."
    again = typed(client, action="activate", reason="Fewer meadows on top")
    assert client.post(URL, again).status_code == 302
    birds.refresh_from_db()
    assert birds.active_config.instruction == "Prefer marshes."
    last = birds.activations.first()
    assert (last.reason, last.activated_by) == ("Fewer meadows on top", people.users["owner"])
    page = client.get(URL).content.decode()
    assert "Fewer meadows on top" in page
    assert "Draft of version 3" in page


def test_a_draft_without_changes_is_not_activated(birds: Collection, client: Client) -> None:
    response = client.post(URL, typed(client, action="activate", reason="none"))
    assert "The draft is the same as version 1" in response.content.decode()
    assert birds.activations.count() == 1


def test_activation_over_a_version_one_has_not_seen_is_refused(
    birds: Collection, client: Client
) -> None:
    data = typed(client, action="activate", instruction="mine", reason="mine")
    theirs = SearchConfig.objects.create(collection=birds, version=7, instruction="theirs")
    configs.activate(theirs, None, "theirs was quicker")
    response = client.post(URL, data)
    assert "theirs was quicker" in response.content.decode()
    birds.refresh_from_db()
    assert birds.active_config == theirs


def test_roll_back_needs_a_reason_and_is_in_the_history(birds: Collection, client: Client) -> None:
    client.post(URL, typed(client, action="activate", instruction="worse", reason="try"))
    active = client.get(URL).context["active"].pk
    data = {"action": "roll-back", "version": "1", "active": active}
    assert "Give a reason" in client.post(URL, data, follow=True).content.decode()
    client.post(URL, {**data, "reason": "it was worse"})
    birds.refresh_from_db()
    assert birds.active_config.version == 1
    acts = client.get(URL).context["history"]
    assert [act.activation.reason for act in acts] == ["it was worse", "try", "First version"]
    assert [change.after for change in acts[0].changes] == ["none"]


def test_versions_and_queries_of_other_collections_are_out_of_reach(
    birds: Collection, client: Client
) -> None:
    other = make_collection("other")
    foreign = SavedQuery.objects.create(collection=other, text="foreign")
    client.post(URL, typed(client, remove=foreign.pk))
    assert SavedQuery.objects.filter(pk=foreign.pk).exists()
    assert client.get(f"{URL}?query={foreign.pk}").context["query"] is None
    data = {"action": "roll-back", "version": "9", "reason": "x"}
    assert client.post(URL, data).status_code == 404
    assert client.post(URL, {"action": "explode"}).status_code == 403


def test_a_discarded_draft_starts_again_from_the_active_version(
    birds: Collection, client: Client
) -> None:
    client.post(URL, typed(client, action="save", instruction="no"))
    client.post(URL, {"action": "discard"})
    assert client.get(URL).context["form"]["instruction"].value() == ""


def test_the_address_is_the_one_the_site_map_names() -> None:
    assert reverse("collection_tuning", args=["birds"]) == URL
