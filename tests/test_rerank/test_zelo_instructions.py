"""Contrasts made of composed documents: what is said in a text is what its targets follow from."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.errors import BadInput
from rerank.zelo.instructions.composed import composed, domains
from rerank.zelo.instructions.contrasts import CASES, UNSEEN_KINDS, Contrast
from rerank.zelo.instructions.generate import (
    KINDS,
    SPLITS,
    Plan,
    contrasts,
    scores_path,
    write_training,
)
from rerank.zelo.instructions.generate import training_lists as lists_of
from rerank.zelo.instructions.rules import (
    NEUTRAL,
    OFF_TOPIC,
    ByDate,
    ByVersion,
    Facts,
    Labelled,
    Means,
    Rule,
    Since,
    Then,
    order,
    targets,
)
from rerank.zelo.instructions.wording import FACETS, LABELS, Wording, phrasings
from rerank.zelo.training_stage import training_lists

MONTHS = {datetime.date(2000, at, 1).strftime("%B"): at for at in range(1, 13)}
EVERY_KIND = (*KINDS, *UNSEEN_KINDS)
SIDES = [(wording, domain) for wording in (False, True) for domain in (False, True)]

facts = st.builds(
    Facts,
    on_topic=st.booleans(),
    date=st.none() | st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 1, 1)),
    version=st.none() | st.tuples(st.integers(0, 40), st.integers(0, 40)),
    labels=st.dictionaries(st.sampled_from(["source", "region"]), st.sampled_from(["a", "b", "c"])),
    about=st.sampled_from(["", "kettle", "oven"]),
)
rules = st.one_of(
    st.builds(ByDate, st.booleans()),
    st.builds(ByVersion, st.booleans()),
    st.builds(Since, st.integers(1985, 2035), st.booleans()),
    st.builds(
        Labelled,
        st.sampled_from(["source", "region"]),
        st.sampled_from(["a", "b"]),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(Means, st.just("ZQX"), st.sampled_from(["kettle", "oven"])),
    st.builds(
        Then,
        st.builds(Labelled, st.just("source"), st.sampled_from(["a", "b"])),
        st.builds(ByDate, st.booleans()),
    ),
)


def made(kind: str, wording: bool, domain: bool, count: int = 25) -> Iterator[Contrast]:
    for at in range(count):
        yield composed(f"t{at}", kind, held_wording=wording, held_domain=domain, seed=3)


def opposite(rule: Rule) -> Rule:
    if isinstance(rule, ByDate | ByVersion):
        return type(rule)(not rule.newest)
    if isinstance(rule, Since):
        return Since(rule.year, not rule.after)
    if isinstance(rule, Then):
        first, second = opposite(rule.first), opposite(rule.second)
        assert isinstance(first, Labelled) and isinstance(second, ByDate)
        return Then(first, second)
    assert isinstance(rule, Labelled)
    return Labelled(rule.family, rule.value, rule.strict, not rule.excluded)


@given(st.lists(facts, max_size=6), st.none() | rules)
def test_targets_are_shares_and_what_does_not_answer_is_always_least(
    documents: list[Facts], rule: Rule | None
) -> None:
    aims = targets(documents, rule)
    assert len(aims) == len(documents)
    assert all(0.0 <= aim <= 1.0 for aim in aims)
    for each, aim in zip(documents, aims, strict=True):
        assert (aim == OFF_TOPIC) == (not each.on_topic)
        assert each.on_topic or aim <= min(aims)


@given(facts, facts, rules)
def test_an_order_is_turned_round_with_its_documents_and_never_mixes_topics(
    first: Facts, second: Facts, rule: Rule
) -> None:
    assert order(first, second, rule) == -order(second, first, rule)
    if first.on_topic and not second.on_topic:
        assert order(first, second, rule) == 1


@given(st.lists(facts, min_size=2, max_size=6), rules)
def test_opposite_rules_order_the_same_documents_in_opposite_ways(
    documents: list[Facts], rule: Rule
) -> None:
    if isinstance(rule, Means):
        return
    known = [each for each in documents if each.on_topic and rule.worth(each) is not None]
    there, back = targets(known, rule), targets(known, opposite(rule))
    for at in range(len(known)):
        for other in range(len(known)):
            assert (there[at] > there[other]) == (back[at] < back[other])


@given(st.lists(st.dates(), min_size=2, max_size=5, unique=True))
def test_a_later_date_gets_the_higher_target(dates: list[datetime.date]) -> None:
    aims = targets([Facts(date=each) for each in dates], ByDate(True))
    by_date = sorted(zip(dates, aims, strict=True))
    assert [aim for _, aim in by_date] == sorted(aims)
    assert len(set(aims)) == len(dates)


@given(facts, facts)
def test_the_second_of_two_wishes_decides_only_where_the_first_does_not(
    one: Facts, other: Facts
) -> None:
    first, second = Labelled("source", "a"), ByDate(True)
    both = order(one, other, Then(first, second))
    known = all(each.date and "source" in each.labels for each in (one, other))
    if one.on_topic and other.on_topic and known:
        assert both == (order(one, other, first) or order(one, other, second))


@given(facts)
def test_a_document_a_rule_does_not_concern_keeps_its_place(each: Facts) -> None:
    if each.on_topic and each.date is None:
        assert targets([each], ByDate(True)) == targets([each], Since(2020, True)) == (NEUTRAL,)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(("wording", "domain"), SIDES)
def test_opposite_instructions_turn_the_pair_round_and_neutral_ones_leave_it_level(
    kind: str, wording: bool, domain: bool
) -> None:
    for contrast in made(kind, wording, domain):
        assert [each.name for each in contrast.cases] == list(CASES)
        one, other = contrast.first, contrast.second
        aims = {case.name: case.targets for case in contrast.cases}
        assert aims["for"][one] > aims["for"][other]
        assert aims["against"][other] > aims["against"][one]
        assert aims["none"] == aims["beside"]
        assert aims["none"][one] == aims["none"][other]
        assert contrast.case("none").instruction == ""
        told = [contrast.case(name).instruction for name in ("for", "against", "beside")]
        assert all(told) and len(set(told)) == 3
        assert len({*contrast.documents[:2]}) == 2
        off = [at for at, each in enumerate(contrast.facts) if not each.on_topic]
        assert len(off) == 2
        for values in aims.values():
            assert max(values[at] for at in off) < min(
                value for at, value in enumerate(values) if at not in off
            )


def test_the_wanted_document_stands_in_any_place() -> None:
    places = Counter(each.first for kind in KINDS for each in made(kind, False, False))
    assert set(places) >= {0, 1, 2, 3}
    assert max(places.values()) < 0.4 * sum(places.values())


def read_date(text: str) -> datetime.date:
    """The date of a document to the month, found without the generator."""
    for pattern, order_of in [
        (r"\b(\d{4})-(\d\d)\b", "ym"),
        (r"\b\d+/(\d\d)/(\d{4})\b", "my"),
        (rf"\b({'|'.join(MONTHS)})(?: \d+,)? (\d{{4}})\b", "my"),
    ]:
        found = re.search(pattern, text)
        if found:
            year, month = found.groups() if order_of == "ym" else reversed(found.groups())
            return datetime.date(int(year), MONTHS.get(month) or int(month), 1)
    raise AssertionError(f"no date in {text!r}")


@pytest.mark.parametrize(("wording", "domain"), SIDES)
def test_dates_in_the_documents_order_the_pair_as_the_targets_do(
    wording: bool, domain: bool
) -> None:
    for contrast in made("recency", wording, domain, 100):
        newer, older = (
            read_date(contrast.documents[at]) for at in (contrast.first, contrast.second)
        )
        assert newer.year > older.year
        for name, newer_wanted in (("for", True), ("against", False)):
            limit = re.search(r"\b(\d{4})\b", contrast.case(name).instruction)  # type: ignore[arg-type]
            if limit:
                assert older.year < int(limit.group(1)) + ("end of" in limit.string) <= newer.year
            aims = contrast.case(name).targets  # type: ignore[arg-type]
            assert (aims[contrast.first] > aims[contrast.second]) == newer_wanted


def test_versions_in_the_documents_order_the_pair_as_the_targets_do() -> None:
    for contrast in made("version", True, True, 100):
        high, low = (
            max(
                tuple(map(int, found))
                for found in re.findall(r"\b(\d+)\.(\d+)\b", contrast.documents[at])
            )
            for at in (contrast.first, contrast.second)
        )
        assert high > low


def marks_of(family: str, value: str) -> list[str]:
    told = phrasings()["label"][family][value]["marks"]
    return [*told["train"], *told["held"]]


@pytest.mark.parametrize("family", LABELS)
def test_a_labelled_document_says_its_own_label_and_not_the_other(family: str) -> None:
    one, other = LABELS[family]
    for contrast in [*made(family, False, True), *made(family, True, False)]:
        for at, (own, strange) in {
            contrast.first: (one, other),
            contrast.second: (other, one),
        }.items():
            text = contrast.documents[at]
            assert any(mark in text for mark in marks_of(family, own))
            assert not any(mark in text for mark in marks_of(family, strange))


def test_a_facet_stands_in_its_document_only_and_in_the_instruction() -> None:
    for contrast in made("facet", True, False, 60):
        one, other = (contrast.facts[at].labels for at in (contrast.first, contrast.second))
        told = contrast.case("for").instruction.lower()
        family = next(name for name in FACETS if one.get(name, "\0").lower() in told)
        assert one[family] in contrast.documents[contrast.first]
        assert one[family] not in contrast.documents[contrast.second]
        assert other[family] in contrast.documents[contrast.second]


def test_only_the_instruction_explains_a_term() -> None:
    for contrast in made("term", True, True, 60):
        one, other = (contrast.facts[at].about for at in (contrast.first, contrast.second))
        assert one in contrast.case("for").instruction
        assert other in contrast.case("against").instruction
        assert one not in contrast.query and other not in contrast.query
        terms = {word.strip(".,=?:") for word in contrast.case("for").instruction.split()}
        shared = terms & {word.strip(".,=?:") for word in contrast.query.split()}
        assert [word for word in shared if word[:1].isupper()]
        assert one in contrast.documents[contrast.first]
        assert one not in contrast.documents[contrast.second]


def test_an_instruction_beside_the_matter_asks_for_nothing_a_document_says() -> None:
    known = phrasings()["label"]
    for kind in KINDS:
        for contrast in made(kind, False, False, 40):
            beside = contrast.case("beside").instruction
            for each in contrast.facts:
                for family in set(each.labels) & set(LABELS):
                    told = [known[family][value]["prefer"]["train"] for value in LABELS[family]]
                    assert not [text for part in told for text in part if text in beside]
                if each.date or each.version:
                    order_words = phrasings()["order"].values()
                    assert not [
                        text for part in order_words for text in part["train"] if text in beside
                    ]


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and "train" not in value:
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value


def test_no_wording_is_both_trained_and_measured() -> None:
    every = dict(leaves(phrasings()))
    assert len(every) > 40
    for path, part in every.items():
        assert part["train"] and part["held"], path
    trained = {text for part in every.values() for text in part["train"]}
    held = [text for part in every.values() for text in part["held"]]
    assert not trained & set(held)
    assert len(held) == len(set(held))


def test_domains_and_terms_of_measuring_are_unseen_in_training() -> None:
    trained, held = domains(False), domains(True)
    assert len(trained) >= 10 and len(held) >= 3
    for part in ("name", "objects", "tasks"):
        first = {str(getattr(each, part)) for each in trained}
        assert not first & {str(getattr(each, part)) for each in held}
    objects = [thing for each in (*trained, *held) for thing in each.objects]
    assert len(objects) == len(set(objects))
    seen = {Wording(False).term(Random(at)) for at in range(2000)}
    assert not seen & {Wording(True).term(Random(at)) for at in range(2000)}


def test_an_unseen_kind_is_measured_but_never_trained() -> None:
    for split in SPLITS:
        kinds = {each.kind for each in contrasts(Plan(40, split=split))}
        assert ("access" in kinds) == (split == "held_out")
    with pytest.raises(BadInput, match="no contrasts of the kind 'access' here: choose from rec"):
        list(contrasts(Plan(4, kinds=("access",))))


def test_a_training_split_uses_training_wordings_only() -> None:
    held = [text for _, part in leaves(phrasings()) for text in part["held"] if "{" not in text]
    for each in contrasts(Plan(200, seed=1)):
        told = " ".join(case.instruction for case in each.cases)
        assert not [text for text in held if text in told and len(text) > 12]


def test_the_same_seed_gives_the_same_contrasts_and_more_of_them_begin_alike() -> None:
    first = list(contrasts(Plan(30, seed=5)))
    assert first == list(contrasts(Plan(30, seed=5)))
    assert first == list(contrasts(Plan(60, seed=5)))[:30]
    assert [each.query for each in first] != [each.query for each in contrasts(Plan(30, seed=6))]


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"count": 0}, "The count is 0; it must be at least 1."),
        ({"count": 5, "rows_share": 1.5}, "The share of rows is 1.5, not within 0 and 1."),
        ({"count": 5, "split": "test"}, "There is no split 'test'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        Plan(**plan)


def test_the_written_files_train_what_the_lists_say(tmp_path: Path) -> None:
    output = tmp_path / "told.jsonl"
    plan = Plan(45, seed=2)
    outcome = write_training(output, plan)
    assert outcome.records == 180
    found = list(training_lists(output, scores_path(output)))
    wanted = list(lists_of(plan))
    assert [each.query_id for each in found] == [each.query_id for each in wanted]
    for read, own in zip(found, wanted, strict=True):
        assert (read.query, read.instruction) == (own.query, own.instruction)
        assert set(zip(read.documents, read.targets, strict=True)) == set(
            zip(own.documents, own.targets, strict=True)
        )
    before = output.read_bytes(), scores_path(output).read_bytes()
    write_training(output, plan)
    assert before == (output.read_bytes(), scores_path(output).read_bytes())
