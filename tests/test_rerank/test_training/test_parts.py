"""Losses by hand, and what is read together and held out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank.errors import TrainingFailed
from rerank.training.examples import PairExample, TrainingList, digest
from rerank.training.losses import bce, listwise, mse, pair_bce
from rerank.training.order import (
    chosen_documents,
    dealt,
    is_turned,
    micro_batches,
    steps_of_epoch,
    steps_per_epoch,
)
from rerank.training.settings import Settings, settings_from
from rerank.training.splitting import likeness, sketch_of, split
from rerank.training.steps import unit_of
from rerank.training.validation import better, list_measures

from .small import lists, pairs

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_mse_by_hand() -> None:
    # sigmoid(5 / 5) = 0.731059, sigmoid(0) = 0.5: 0.268941^2 + 0.25^2
    assert float(mse(tensor(5.0, 0.0), tensor(1.0, 0.25))) == pytest.approx(0.134829, abs=1e-6)


def test_bce_by_hand() -> None:
    # p = 0.8 for a logit of ln 4: -0.75 ln 0.8 - 0.25 ln 0.2 = 0.569717, and ln 2 for a logit of 0
    loss = bce(tensor(math.log(4), 0.0), tensor(0.75, 0.3))
    assert float(loss) == pytest.approx(0.569717 + 0.693147, abs=1e-6)
    weighted = pair_bce(tensor(math.log(4), 0.0), tensor(0.75, 0.3), tensor(2.0, 0.5))
    assert float(weighted) == pytest.approx(2 * 0.569717 + 0.5 * 0.693147, abs=1e-6)


def test_listwise_by_hand() -> None:
    # softmax of (ln 2, 0, 0) is (1/2, 1/4, 1/4); targets (0.6, 0.2, 0) become (3/4, 1/4, 0):
    # 3/4 ln 2 + 1/4 ln 4 = 0.866434
    loss = listwise(tensor(math.log(2), 0.0, 0.0), tensor(0.6, 0.2, 0.0))
    assert float(loss) == pytest.approx(0.866434, abs=1e-6)
    logits = tensor(1.0, 2.0).requires_grad_()
    nothing = listwise(logits, tensor(0.0, 0.0))
    nothing.backward()
    assert float(nothing.detach()) == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", [mse, bce, pair_bce, listwise])
def test_gradients_are_those_of_finite_differences(loss: object) -> None:
    logits = tensor(1.5, -0.7, 0.2, 3.0).requires_grad_()
    targets = tensor(0.9, 0.1, 0.5, 0.0)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (logits,))  # type: ignore[operator]


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_an_epoch_reads_every_example_once(lengths: list[int], batch: int, epoch: int) -> None:
    steps = steps_of_epoch(lengths, batch, 1, epoch)
    assert sorted(place for step in steps for place in step) == list(range(len(lengths)))
    assert len(steps) == steps_per_epoch(len(lengths), batch)
    assert max(map(len, steps)) <= batch
    assert steps == steps_of_epoch(lengths, batch, 1, epoch)


@given(LENGTHS, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_processes_share_a_step_evenly(lengths: list[int], processes: int) -> None:
    shares = [dealt(lengths, rank, processes) for rank in range(processes)]
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=10),
    st.integers(1, 200),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_micro_batches_hold_to_the_budget(
    groups: list[list[int]], tokens: int, together: bool
) -> None:
    lengths = [length for group in groups for length in group]
    batches = micro_batches(groups, tokens, together)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    starts = [sum(map(len, groups[:place])) for place in range(len(groups))]
    for batch in batches:
        alone = [start for start in starts if start in batch] if together else batch
        assert len(batch) * max(lengths[row] for row in batch) <= tokens or len(alone) == 1
    if together:
        for start, group in zip(starts, groups, strict=True):
            rows = list(range(start, start + len(group)))
            assert any(
                batch[batch.index(start) :][: len(rows)] == rows
                for batch in batches
                if start in batch
            )


def test_documents_and_turns_change_with_the_epoch() -> None:
    chosen = {tuple(chosen_documents(20, 5, 0, epoch, 3)) for epoch in range(4)}
    assert len(chosen) > 1 and all(len(each) == 5 and sorted(each) == [*each] for each in chosen)
    assert chosen_documents(4, 5, 0, 0, 3) == chosen_documents(4, 0, 0, 1, 3) == [0, 1, 2, 3]
    turned = sum(is_turned(0, 0, place) for place in range(400))
    assert 160 < turned < 240


def test_a_turned_pair_is_the_other_preference() -> None:
    units = [unit_of(each, Settings(loss="pair_bce"), 0, n) for n, each in enumerate(pairs(20))]
    assert {unit.is_turned for unit in units} == {True, False}
    fixed = Settings(loss="pair_bce", swap_pairs=False)
    assert not any(unit_of(each, fixed, 0, n).is_turned for n, each in enumerate(pairs(20)))


def test_held_out_queries_and_their_answers_are_not_trained_on() -> None:
    answer = " ".join(f"word{number}" for number in range(60))
    almost = answer.replace("word59", "another")
    made = [
        TrainingList(f"q{n}", f"query {n}", "", (f"good {n}", f"bad {n}", "poor"), (0.9, 0.1, 0.2))
        for n in range(20)
    ]
    made += [TrainingList("again", "Query  3", "in short", ("x", "y"), (1.0, 0.0))]
    made = [
        replace(each, documents=(answer if n % 2 else almost, *each.documents[1:]))
        if each.query_id in {"q4", "q5", "q6", "q7"}
        else each
        for n, each in enumerate(made)
    ]
    whole: set[bool] = set()
    for seed in range(12):
        parts = split(made, 0.3, seed)
        train, held = (
            [e for e in part if isinstance(e, TrainingList)]
            for part in (parts.train, parts.held_out)
        )
        names = [{" ".join(each.query.lower().split()) for each in part} for part in (train, held)]
        assert not names[0] & names[1]
        assert len(names[1]) == 6
        if any(each.query_id in {"q4", "q5", "q6", "q7"} for each in held):
            assert not any(text in {answer, almost} for each in train for text in each.documents)
            whole.add(True)
        assert all("poor" in each.documents for each in train if each.query_id.startswith("q"))
    assert whole


def test_a_split_needs_something_on_both_sides() -> None:
    assert split(lists(3), 0.0, 0).held_out == ()
    with pytest.raises(TrainingFailed, match="one query only"):
        split(lists(1), 0.5, 0)
    same = [replace(each, query=f"{each.query}!") for each in pairs(6)]
    one = [PairExample(f"q {n}", "", "the same answer", f"other {n}", 1.0) for n in range(5)]
    with pytest.raises(TrainingFailed, match="shares its relevant documents"):
        split(one, 0.2, 0)
    assert len(split(same, 0.2, 0).held_out) == 1


def test_near_duplicates_are_alike_and_others_not() -> None:
    text = " ".join(f"w{number}" for number in range(200))
    assert likeness(sketch_of(text), sketch_of(text.upper() + "  ")) == 1
    assert likeness(sketch_of(text), sketch_of(f"{text} and a little more")) > 0.7
    assert likeness(sketch_of(text), sketch_of(text.replace("w", "v"))) == 0
    assert likeness(sketch_of("short"), sketch_of("shorter")) == 0


def test_measures_of_one_list_by_hand() -> None:
    import numpy as np

    found = list_measures(["a", "b", "c"], [1.0, 0.0, 0.5], np.array([2.0, 3.0, 1.0], np.float32))
    # order b, a, c: (1 / log2 3 + 0.5 / 2) / (1 + 0.5 / log2 3)
    expected = (1 / math.log2(3) + 0.25) / (1 + 0.5 / math.log2(3))
    assert found["nDCG@10"] == (pytest.approx(expected, abs=1e-6), 1.0)
    assert found["pairwise accuracy"] == (1.0, 3.0)
    tied = list_measures(["a", "b"], [1.0, 0.0], np.zeros(2, np.float32))
    assert tied["pairwise accuracy"] == (0.5, 1.0)
    assert tied["squared error"] == (0.5, 2.0)
    assert better({"nDCG@10": 0.5, "squared error": 0.1}, {"nDCG@10": 0.5, "squared error": 0.2})
    assert better({"nDCG@10": 0.5}, None) and not better({"nDCG@10": 0.5}, {"nDCG@10": 0.5})
    assert better({"loss": 0.4, "pairwise accuracy": 0.1}, {"loss": 0.5})


def test_a_changed_example_changes_the_digest() -> None:
    assert digest(lists(3)) == digest(lists(3)) != digest(lists(4))
    assert digest(lists(1)) != digest([replace(lists(1)[0], instruction="x")])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"loss": "hinge"}, "no loss called 'hinge'"),
        ({"epochs": 0}, "epochs is at least 1"),
        ({"rate": 0.0}, "rate is above 0"),
        ({"rate": float("nan")}, "rate is above 0"),
        ({"warmup": 1.0}, "warmup is at least 0 and less than 1"),
        ({"layer_decay": 2.0}, "layer_decay"),
        ({"batches": 3}, "no setting called 'batches'"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"autocast": 1}, "autocast is 1"),
        ({"epochs": True}, "epochs is True"),
    ],
)
def test_settings_that_make_no_sense_are_named(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(TrainingFailed, match=sentence):
        settings_from(values)
    assert settings_from({"rate": 1, "batch": 3}).batch == 3
