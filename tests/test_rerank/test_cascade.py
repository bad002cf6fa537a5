"""Rerankers one behind the other: the order, its scores, the budget, and stages that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank.cascade import CascadeReranker, Stage
from rerank.errors import BadInput, Cancelled, EndpointError, RerankError
from rerank.inference.loading import load_reranker
from rerank.ranking.ranks import hold_to_order, scores_by_rank
from rerank.recipes import build, read_recipe
from rerank.types import ModelCard, RerankRequest, RerankScores

from .http_servers import Asked, ranked, serving


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Numbers:
    """Scores a document by `score(its number)`; takes `ms_per_pair` on its clock."""

    name: str
    score_of: Callable[[float], float]
    scale: Literal["published", "sigmoid", "untrained", "rank"] = "published"
    clock: Clock = field(default_factory=Clock)
    ms_per_pair: float = 0.0
    error: RerankError | None = None
    seen: list[RerankRequest] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def card(self) -> ModelCard:
        return ModelCard(self.name, "numbers", f"{self.name}-device", "float64")

    def score(self, request: RerankRequest) -> RerankScores:
        self.seen.append(request)
        self.clock.now += self.ms_per_pair * len(request.documents) / 1000
        if self.error is not None:
            raise self.error
        relevance = np.array([self.score_of(float(each)) for each in request.documents], "float32")
        if self.scale == "rank":
            logits, relevance = scores_by_rank(np.argsort(-relevance, kind="stable").tolist())
        else:
            logits = (10 * relevance).astype(np.float32)
        return RerankScores(logits, relevance, self.scale, truncated=1, tokens=10, notes=self.notes)


def documents(count: int) -> list[str]:
    """Documents "0", "1", …: what a stage makes of the number is its business."""
    return [str(number) for number in range(count)]


def order_of(scores: RerankScores) -> list[int]:
    """The order, which the logits alone must give, without ties."""
    assert len(set(scores.logits.tolist())) == len(scores.logits)
    by_logit = np.argsort(-scores.logits).tolist()
    assert (np.diff(scores.relevance[by_logit]) <= 0).all()
    assert np.isfinite(scores.logits).all()
    assert ((scores.relevance >= 0) & (scores.relevance <= 1)).all()
    return by_logit


def rising(number: float) -> float:
    return number / 100


def falling(number: float) -> float:
    return max(0.0, 0.9 - number / 100)


def test_each_stage_reads_the_best_of_the_one_before() -> None:
    cheap, strong = Numbers("cheap", rising), Numbers("strong", falling)
    listing = Numbers("list", lambda number: float(number == 7))
    cascade = CascadeReranker([Stage(cheap, 5), Stage(strong, 3), Stage(listing)])
    scores = cascade.score(RerankRequest("q", documents(10), "instruct", np.linspace(0, 1, 10)))
    assert [each.documents for each in strong.seen] == [["9", "8", "7", "6", "5"]]
    assert [each.documents for each in listing.seen] == [["5", "6", "7"]]
    # Survivors of the last stage in its order, ties as they were; then those it did not read.
    assert order_of(scores) == [7, 5, 6, 8, 9, 4, 3, 2, 1, 0]
    assert strong.seen[0].instruction == "instruct" and strong.seen[0].query == "q"
    assert strong.seen[0].priors == pytest.approx([1, 8 / 9, 7 / 9, 6 / 9, 5 / 9])
    assert scores.tokens == 30 and scores.truncated == 1 and scores.notes == ()


def test_the_best_keep_the_strong_models_own_numbers() -> None:
    cheap = Numbers("cheap", lambda number: 0.95 + number / 1000, "untrained")
    strong = Numbers("strong", falling)
    scores = CascadeReranker([Stage(cheap, 3), Stage(strong)]).score(
        RerankRequest("q", documents(6))
    )
    assert order_of(scores) == [3, 4, 5, 2, 1, 0]
    assert scores.scale == "published"
    assert scores.relevance[[3, 4, 5]].tolist() == pytest.approx([0.87, 0.86, 0.85])
    assert scores.logits[[3, 4, 5]].tolist() == pytest.approx([8.7, 8.6, 8.5])
    # The cheap model rated the rest higher; they are held below the survivors.
    assert scores.relevance[[2, 1, 0]].tolist() == pytest.approx([0.85] * 3)


def test_a_last_stage_that_only_ranks_makes_ranks_of_all() -> None:
    cheap, listing = Numbers("cheap", rising), Numbers("list", falling, "rank")
    scores = CascadeReranker([Stage(cheap, 2), Stage(listing)]).score(
        RerankRequest("q", documents(4))
    )
    assert order_of(scores) == [2, 3, 1, 0] and scores.scale == "rank"
    assert scores.relevance.tolist() == pytest.approx([0.2, 0.4, 0.8, 0.6])


@given(
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 3), max_size=30),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_sorting_by_logit_always_gives_the_order_meant(
    scores: list[tuple[float, float, float]], first: int, second: int
) -> None:
    stages = [
        Numbers("abc"[at], lambda number, at=at: scores[int(number)][at])  # type: ignore[misc]
        for at in range(3)
    ]
    cascade = CascadeReranker([Stage(stages[0], first), Stage(stages[1], second), Stage(stages[2])])
    got = cascade.score(RerankRequest("q", documents(len(scores))))
    expected = list(range(len(scores)))
    for at, reach in enumerate([len(scores), first, second]):
        head = sorted(
            expected[:reach], key=lambda place: -np.float32(10) * np.float32(scores[place][at])
        )
        expected[:reach] = head
    assert order_of(got) == expected


def test_scores_are_lowered_only_where_they_must_be() -> None:
    logits = np.array([5.0, 5.0, 7.0, 1.0], dtype=np.float32)
    relevance = np.array([0.5, 0.6, 0.7, 0.1], dtype=np.float32)
    held, held_relevance = hold_to_order([0, 1, 2, 3], logits, relevance)
    assert held[0] == 5 and held[3] == 1
    assert 5 > held[1] > held[2] > 4.99999
    assert held_relevance.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.1])
    assert logits.tolist() == [5, 5, 7, 1]


def test_a_stage_that_fails_leaves_the_order_before_it() -> None:
    cheap = Numbers("cheap", rising)
    broken = Numbers("broken", falling, error=EndpointError("The endpoint is down."))
    last = Numbers("last", falling)
    scores = CascadeReranker([Stage(cheap, 5), Stage(broken, 2), Stage(last)]).score(
        RerankRequest("q", documents(8))
    )
    assert [each.documents for each in last.seen] == [["7", "6"]]
    assert order_of(scores) == [6, 7, 5, 4, 3, 2, 1, 0]
    assert scores.notes == ("broken failed, the order before it stands: The endpoint is down.",)


def test_when_the_first_stage_fails_the_next_reads_the_first_stage_order() -> None:
    broken = Numbers("broken", rising, error=BadInput("Too long."))
    strong = Numbers("strong", rising)
    scores = CascadeReranker([Stage(broken, 3), Stage(strong)]).score(
        RerankRequest("q", documents(6))
    )
    assert order_of(scores) == [2, 1, 0, 3, 4, 5]
    assert scores.relevance[3:].tolist() == [0, 0, 0]


def test_when_every_stage_fails_so_does_the_cascade() -> None:
    stages = [
        Stage(Numbers("a", rising, error=BadInput("Too long.")), 3),
        Stage(Numbers("b", rising, error=EndpointError("Down."))),
    ]
    with pytest.raises(EndpointError, match="Down"):
        CascadeReranker(stages).score(RerankRequest("q", documents(6)))


def test_a_cancelled_stage_ends_the_cascade() -> None:
    last = Numbers("last", rising)
    stages = [
        Stage(Numbers("a", rising), 3),
        Stage(Numbers("b", rising, error=Cancelled("Nobody waits.")), 3),
        Stage(last),
    ]
    with pytest.raises(Cancelled):
        CascadeReranker(stages).score(RerankRequest("q", documents(6)))
    assert last.seen == []


def test_scores_that_are_no_numbers_are_a_failure() -> None:
    odd = Numbers("odd", lambda number: float("nan"))
    scores = CascadeReranker([Stage(Numbers("cheap", rising), 3), Stage(odd)]).score(
        RerankRequest("q", documents(4))
    )
    assert order_of(scores) == [3, 2, 1, 0]
    assert "odd gave scores that are no numbers" in scores.notes[0]


def test_a_stage_that_would_exceed_the_time_left_is_not_begun() -> None:
    clock = Clock()
    cheap = Numbers("cheap", rising, clock=clock, ms_per_pair=1)
    strong = Numbers("strong", falling, clock=clock, ms_per_pair=20)
    cascade = CascadeReranker([Stage(cheap, 10), Stage(strong)], budget_ms=250, clock=clock)
    # 10 + 200 ms fit, and the first call of all is not known yet anyway.
    assert order_of(cascade.score(RerankRequest("q", documents(10)))) == list(range(10))
    # 60 + 200 ms do not.
    scores = cascade.score(RerankRequest("q", documents(60)))
    assert order_of(scores) == list(range(59, -1, -1))
    assert scores.notes == (
        "strong was left out: the 200 ms it should take exceed the 190 ms left of the budget.",
    )
    assert len(strong.seen) == 1
    assert order_of(cascade.score(RerankRequest("q", documents(10)))) == list(range(10))


def test_a_stage_left_out_long_enough_is_tried_again() -> None:
    clock = Clock()
    strong = Numbers("strong", falling, clock=clock, ms_per_pair=100)
    cascade = CascadeReranker(
        [Stage(Numbers("cheap", rising), 10), Stage(strong)], budget_ms=250, clock=clock
    )
    cascade.score(RerankRequest("q", documents(10)))
    strong.ms_per_pair = 1
    for _ in range(30):
        scores = cascade.score(RerankRequest("q", documents(10)))
    assert scores.notes == () and 2 <= len(strong.seen) < 30


def test_a_stage_that_fails_slowly_counts_as_slow() -> None:
    clock = Clock()
    strong = Numbers("strong", falling, "published", clock, 100, EndpointError("Late."))
    cascade = CascadeReranker(
        [Stage(Numbers("cheap", rising), 10), Stage(strong)], budget_ms=250, clock=clock
    )
    cascade.score(RerankRequest("q", documents(10)))
    assert "was left out" in cascade.score(RerankRequest("q", documents(10))).notes[0]


def test_a_budget_in_pairs_is_kept() -> None:
    stages = [Numbers("a", rising), Numbers("b", falling), Numbers("c", rising)]
    cascade = CascadeReranker(
        [Stage(stages[0], 8), Stage(stages[1], 4), Stage(stages[2])], budget_pairs=30
    )
    scores = cascade.score(RerankRequest("q", documents(20)))
    assert [len(stage.seen) for stage in stages] == [1, 1, 0]
    assert scores.notes == ("c was left out: its 4 pairs exceed the 2 left of the budget.",)


def test_no_documents_give_empty_arrays() -> None:
    cascade = CascadeReranker(
        [Stage(Numbers("a", rising), 8), Stage(Numbers("b", rising))], budget_ms=1, budget_pairs=1
    )
    scores = cascade.score(RerankRequest("q", []))
    assert scores.logits.shape == scores.relevance.shape == (0,)


def test_ten_thousand_documents_are_held_in_order() -> None:
    scores = CascadeReranker(
        [Stage(Numbers("a", lambda number: 0.5), 100), Stage(Numbers("b", falling))]
    ).score(RerankRequest("q", documents(10_000)))
    assert order_of(scores) == list(range(10_000))


def test_notes_of_the_stages_are_passed_on() -> None:
    stages = [Stage(Numbers("a", rising), 2), Stage(Numbers("b", rising, notes=("One window.",)))]
    assert CascadeReranker(stages).score(RerankRequest("q", ["1", "2"])).notes == ("One window.",)


def test_the_card_names_the_stages_and_scores_are_never_kept() -> None:
    card = CascadeReranker([Stage(Numbers("a", rising), 2), Stage(Numbers("b", rising))]).card
    assert card.name == "a → b" and card.device == "a-device, b-device"
    assert card.revision == ""


@pytest.mark.parametrize("keeps", [[], [0, 0], [3, 0, 0]])
def test_a_cascade_that_cannot_work_is_refused(keeps: Sequence[int]) -> None:
    with pytest.raises(ValueError):
        CascadeReranker([Stage(Numbers("a", rising), keep) for keep in keeps])


def test_the_built_in_model_and_an_endpoint_rank_together(tmp_path: Any) -> None:
    def answer(asked: Asked, handler: Any) -> Any:
        return 200, ranked(asked.body["query"], asked.body["texts"], "score")

    texts = [
        "A recipe for apple jam: boil the apples with sugar.",
        "Bicycles need oil on their chains.",
        "Apples fall from trees in autumn.",
        "The parliament met on Tuesday.",
        "Boil water before you drink it.",
    ]
    with serving(answer) as server:
        recipe = tmp_path / "cascade.toml"
        (tmp_path / "tei.toml").write_text(
            f'kind = "endpoint"\ndialect = "tei"\nurl = "{server.url}"\nname = "shared words"\n'
        )
        recipe.write_text(
            'kind = "cascade"\n[[stage]]\nmodel = "untrained"\nkeep = 3\n'
            '[[stage]]\nmodel = "tei.toml"\n'
        )
        cascade = build(read_recipe(recipe), lambda name: load_reranker(name, "cpu"))
        scores = cascade.score(RerankRequest("boil the apples", texts, "Prefer recipes."))
    assert cascade.card.name == "untrained → shared words"
    assert order_of(scores)[0] == 0 and scores.notes == () and scores.scale == "published"
    assert len(server.bodies[0]["texts"]) == 3
    assert server.bodies[0]["query"].endswith("Prefer recipes.")
    # The server is gone now: the order of the built-in model stands.
    alone = load_reranker("untrained", "cpu").score(RerankRequest("boil the apples", texts))
    left = cascade.score(RerankRequest("boil the apples", texts))
    assert order_of(left) == np.argsort(-alone.logits, kind="stable").tolist()
    assert "shared words failed" in left.notes[0] and left.scale == "untrained"
