"""Versions of search configs: drafts, activation with its race, roll back, diff, instruction."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from searchapp.models import Collection, ConfigActivation, SearchConfig
from searchapp.search import configs


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create_user("olive", password="a-long-password-7")


@pytest.fixture
def collection(owner: User) -> Collection:
    return Collection.objects.create_with_owner(slug="manuals", name="Manuals", user=owner)


def active(collection: Collection) -> SearchConfig:
    collection.refresh_from_db()
    assert collection.active_config is not None
    return collection.active_config


def test_a_draft_starts_with_the_values_of_the_active_version(
    collection: Collection, owner: User
) -> None:
    SearchConfig.objects.filter(pk=active(collection).pk).update(dense_weight=0.25, threshold=0.0)
    draft = configs.draft_for(collection, owner)
    assert (draft.version, draft.dense_weight, draft.threshold) == (2, 0.25, 0.0)
    assert draft.frozen_at is None
    assert draft.created_by == owner


def test_there_is_one_open_draft_per_collection(collection: Collection, owner: User) -> None:
    first = configs.draft_for(collection, owner)
    configs.save_draft(first, {"instruction": "Prefer the manual."})
    again = configs.draft_for(collection, owner, based_on=active(collection))
    assert again.pk == first.pk
    assert again.instruction == "Prefer the manual."


def test_a_draft_of_another_collections_version_is_a_mistake(
    collection: Collection, owner: User
) -> None:
    other = Collection.objects.create_with_owner(slug="other", name="Other", user=owner)
    with pytest.raises(ValueError, match="no version of manuals"):
        configs.draft_for(collection, owner, based_on=other.active_config)


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"lexical_depth": 0, "dense_depth": 0}, "lexical_depth", "at least one leg"),
        ({"dense_weight": 1.2}, "dense_weight", "a number from 0 to 1"),
        ({"rrf_k": 0}, "rrf_k", "from 1 to 1000"),
        ({"instruction": "x" * 4001}, "instruction", "4001 characters"),
        ({"threshold": -0.1}, "threshold", "from 0 to 1"),
        ({"rerank_depth": 500}, "rerank_depth", "from 0 to 200"),
        ({"glossary": [{"term": "PTO", "meaning": ""}]}, "glossary", "both a term and its meaning"),
        (
            {"glossary": [{"term": "PTO", "meaning": "a"}, {"term": "pto", "meaning": "b"}]},
            "glossary",
            "twice",
        ),
        ({"model": " "}, "model", "Name a reranker"),
    ],
)
def test_a_wrong_draft_is_refused_with_a_sentence_and_not_saved(
    collection: Collection, owner: User, changes: dict[str, Any], field: str, sentence: str
) -> None:
    draft = configs.draft_for(collection, owner)
    before = configs.values(SearchConfig.objects.get(pk=draft.pk))
    found = configs.save_draft(draft, changes)
    assert sentence in found[field]
    assert configs.values(SearchConfig.objects.get(pk=draft.pk)) == before


def test_zero_is_a_threshold_and_none_is_none(collection: Collection, owner: User) -> None:
    draft = configs.draft_for(collection, owner)
    assert configs.save_draft(draft, {"threshold": 0.0}) == {}
    assert SearchConfig.objects.get(pk=draft.pk).threshold == 0.0
    assert configs.save_draft(draft, {"threshold": None}) == {}
    assert SearchConfig.objects.get(pk=draft.pk).threshold is None


def test_a_draft_saved_by_another_owner_meanwhile_is_not_overwritten_unasked(
    collection: Collection, owner: User
) -> None:
    draft = configs.draft_for(collection, owner)
    seen = configs.fingerprint(draft)
    configs.save_draft(SearchConfig.objects.get(pk=draft.pk), {"instruction": "theirs"}, seen)
    found = configs.save_draft(draft, {"instruction": "mine"}, seen)
    assert "Somebody saved this draft" in found[""]
    assert SearchConfig.objects.get(pk=draft.pk).instruction == "theirs"


def test_activation_freezes_the_draft_and_records_who_why_and_what_was_before(
    collection: Collection, owner: User
) -> None:
    first = active(collection)
    draft = configs.draft_for(collection, owner)
    outcome = configs.activate(draft, owner, "  Fewer tutorials on top ", first.pk)
    assert outcome.problem == ""
    record = ConfigActivation.objects.get(pk=outcome.activation.pk)
    assert (record.activated_by, record.reason, record.previous) == (
        owner,
        "Fewer tutorials on top",
        first,
    )
    now = active(collection)
    assert now.pk == draft.pk
    assert now.frozen_at is not None
    assert "can no longer be changed" in configs.save_draft(now, {"rrf_k": 10})[""]
    assert configs.draft_for(collection, owner).version == 3


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
def test_activation_without_a_reason_does_nothing(
    collection: Collection, owner: User, reason: str
) -> None:
    first = active(collection)
    outcome = configs.activate(configs.draft_for(collection, owner), owner, reason)
    assert outcome.activation is None
    assert "reason" in outcome.problem
    assert active(collection) == first


def test_activation_is_refused_when_another_version_became_active_meanwhile(
    collection: Collection, owner: User
) -> None:
    seen = active(collection).pk
    configs.activate(configs.draft_for(collection, owner), owner, "first come")
    late = configs.draft_for(collection, owner)
    outcome = configs.activate(late, owner, "too late", seen)
    assert outcome.activation is None
    assert "olive made version 2 active in the meantime (“first come”)" in outcome.problem
    assert active(collection).version == 2


# Naming the apps makes the clean-up cascade to the vectors, a table without a model.
@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_of_two_activations_at_the_same_moment_exactly_one_wins() -> None:
    owner = User.objects.create_user("olive")
    collection = Collection.objects.create_with_owner(slug="race", name="Race", user=owner)
    seen = collection.active_config_id
    drafts = [
        SearchConfig.objects.create(collection=collection, version=version)
        for version in range(2, 6)
    ]
    start = threading.Barrier(len(drafts))
    outcomes: list[configs.Outcome] = []

    def run(draft: SearchConfig) -> None:
        try:
            start.wait(10)
            outcomes.append(configs.activate(draft, owner, f"v{draft.version}", seen))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(draft,)) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    won = [outcome.activation for outcome in outcomes if outcome.activation is not None]
    assert len(outcomes) == 4
    assert len(won) == 1
    assert active(collection).pk == won[0].config_id
    assert collection.activations.count() == 2  # the first version's and the winner's
    assert SearchConfig.objects.filter(collection=collection, frozen_at=None).count() == 3


def test_roll_back_activates_an_earlier_version_as_a_new_act(
    collection: Collection, owner: User
) -> None:
    first = active(collection)
    configs.activate(configs.draft_for(collection, owner), owner, "try")
    outcome = configs.roll_back(collection, first, owner, "worse on the saved queries")
    assert outcome.activation is not None
    assert active(collection) == first
    assert [act.reason for act in collection.activations.all()] == [
        "worse on the saved queries",
        "try",
        "First version",
    ]


def test_a_version_that_was_never_active_is_nothing_to_roll_back_to(
    collection: Collection, owner: User
) -> None:
    draft = configs.draft_for(collection, owner)
    assert "never active" in configs.roll_back(collection, draft, owner, "why not").problem


def test_diff_names_the_changed_fields_in_words(collection: Collection, owner: User) -> None:
    first = active(collection)
    draft = configs.draft_for(collection, owner)
    configs.save_draft(
        draft,
        {
            "instruction": "Prefer the manual.",
            "rerank_depth": 0,
            "fusion": "rrf",
            "glossary": [{"term": "PTO", "meaning": "paid time off"}],
        },
    )
    changes = [(each.name, each.before, each.after) for each in configs.diff(first, draft)]
    assert changes == [
        ("Instruction", "none", "Prefer the manual."),
        ("Glossary", "empty", "PTO: paid time off"),
        ("Fusion", "Weighted scores", "Reciprocal ranks"),
        ("Rerank depth", "100", "0 (off)"),
    ]
    assert configs.diff(draft, draft) == []


@pytest.mark.parametrize(
    ("instruction", "glossary", "override", "rendered"),
    [
        ("", [], None, ""),
        ("Prefer A.", [], None, "Prefer A."),
        ("Prefer A.", [], "Prefer B.", "Prefer B."),
        ("Prefer A.", [("PTO", "paid time off")], "", ""),
        ("Prefer A.", [("PTO", "paid time off")], "  ", ""),
        (
            "Prefer A.",
            [("PTO", "paid time off"), ("SLA", "service level")],
            None,
            "Prefer A.\n\nGlossary:\nPTO: paid time off\nSLA: service level",
        ),
        ("", [("PTO", "paid time off")], None, "Glossary:\nPTO: paid time off"),
        ("A", [("PTO", "paid time off")], "B", "B\n\nGlossary:\nPTO: paid time off"),
    ],
)
def test_the_instruction_is_rendered_with_the_glossary_below(
    instruction: str, glossary: list[tuple[str, str]], override: str | None, rendered: str
) -> None:
    config = SearchConfig(
        instruction=instruction,
        glossary=[{"term": term, "meaning": meaning} for term, meaning in glossary],
    )
    assert configs.rendered_instruction(config, override) == rendered


def test_a_discarded_draft_is_gone_and_the_next_one_is_new(
    collection: Collection, owner: User
) -> None:
    draft = configs.draft_for(collection, owner)
    configs.save_draft(draft, {"instruction": "no"})
    assert configs.discard_draft(collection)
    assert not configs.discard_draft(collection)
    assert "discarded" in configs.save_draft(draft, {"instruction": "still no"})[""]
    assert configs.draft_for(collection, owner).instruction == ""


@pytest.mark.django_db
def test_words_lead_where_the_built_in_embedder_cannot_read(settings: Any) -> None:
    weights = {}
    for language in ("en", "ja"):
        made = Collection.objects.create_with_owner(slug=language, name="A", language=language)
        weights[language] = made.active_config.dense_weight
    assert weights == {"en": 0.7, "ja": 0.3}
    settings.EMBED_MODEL = "someone/multilingual"
    other = Collection.objects.create_with_owner(slug="other", name="A", language="ja")
    assert other.active_config.dense_weight == 0.7
