"""Judges are asked once each, in an order drawn by chance, and nothing is counted that failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rerank.errors import BadStage, JudgingStopped
from rerank.zelo.answers import Answer, AnswerBook
from rerank.zelo.judges import HumanJudge, LocalJudge, QrelsJudge
from rerank.zelo.judging import (
    Comparison,
    Judge,
    Side,
    Verdict,
    ask,
    distinct,
    estimate_cost,
    is_swapped,
)
from rerank.zelo.spending import Price, Spending


def comparisons(count: int, query: str = "q") -> list[Comparison]:
    return [
        Comparison(
            Side(query, "words", f"a{at}", f"good {at}"),
            Side(query, "words", f"b{at}", f"bad {at}"),
        )
        for at in range(count)
    ]


def prefers_good(shown: Sequence[Comparison]) -> list[float | None]:
    return [0.9 if each.a.text.startswith("good") else 0.1 for each in shown]


class Counting(LocalJudge):
    """Remembers what it was asked."""

    def __init__(
        self, name: str, prefer: Callable[[Sequence[Comparison]], Sequence[float | None]]
    ) -> None:
        super().__init__(name, prefer)
        self.asked: list[Comparison] = []

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        self.asked += comparisons
        return super().prefer(comparisons)


class Paid(Counting):
    """Takes ten tokens in and two out for each comparison, and says so."""

    def __init__(self, name: str, per_token: float = 1.0) -> None:
        super().__init__(name, prefers_good)
        self.price = Price(per_token * 1e6, per_token * 1e6, output_tokens=2)

    def expected_tokens(self, comparison: Comparison) -> int:
        return 10

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [Verdict(each.preference, "", 10, 2) for each in super().prefer(comparisons)]


def straight(book: AnswerBook, judge: str, each: Comparison, seed: int = 0) -> float | None:
    """The kept preference for the pair's first document."""
    swapped = is_swapped(judge, each, seed)
    answer = book.get(judge, each.key, swapped)
    if answer is None or answer.preference is None:
        return None
    return 1 - answer.preference if swapped else answer.preference


def test_half_of_the_pairs_are_shown_swapped_and_answers_turned_back() -> None:
    judge, book = Counting("j", prefers_good), AnswerBook()
    pairs = comparisons(400)
    report = ask([judge], pairs, book)
    first = sum(each.a.text.startswith("good") for each in judge.asked)
    assert 160 < first < 240
    assert all(straight(book, "j", each) == pytest.approx(0.9) for each in pairs)
    assert report.judges[0].mean_first == pytest.approx(0.5, abs=0.1)
    assert report.judges[0].answered == 400


def test_each_judge_tosses_its_own_coin_and_another_seed_tosses_anew() -> None:
    pairs = comparisons(200)
    one = [is_swapped("one", each, 0) for each in pairs]
    assert one == [is_swapped("one", each, 0) for each in pairs]
    for other in (
        [is_swapped("two", each, 0) for each in pairs],
        [is_swapped("one", each, 1) for each in pairs],
    ):
        assert 60 < sum(a != b for a, b in zip(one, other, strict=True)) < 140


def test_what_was_answered_is_not_asked_again_even_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    pairs = comparisons(30)
    judge = Counting("j", prefers_good)
    ask([judge], pairs[:20], AnswerBook(path))
    # A kill in the middle of a line leaves half of it.
    with path.open("a") as file:
        file.write('{"judge": "j", "key": "ab')
    judge.asked.clear()
    report = ask([judge], pairs, AnswerBook(path))
    assert len(judge.asked) == 10
    assert (report.judges[0].kept, report.judges[0].answered) == (20, 10)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 30
    judge.asked.clear()
    ask([judge], pairs, AnswerBook(path))
    assert judge.asked == []


def test_a_changed_text_is_asked_about_again() -> None:
    book, judge = AnswerBook(), Counting("j", prefers_good)
    pair = comparisons(1)[0]
    ask([judge], [pair], book)
    changed = Comparison(pair.a, Side("q", "words", pair.b.document_id, "bad but new"))
    ask([judge], [changed], book)
    assert len(judge.asked) == 2


def test_failed_calls_are_never_counted_and_asked_again_next_time() -> None:
    calls = iter([None, 1.5, float("nan"), *[0.9] * 60])
    judge = Counting("j", lambda shown: [next(calls) for _ in shown])
    book = AnswerBook()
    whole = ask([judge], comparisons(40), book)
    report = whole.judges[0]
    assert (report.asked, report.answered, report.failed) == (40, 37, 3)
    assert len(book) == 37
    assert "3 failed and not counted (It answered nan.)" in whole.sentences()[0]
    judge.asked.clear()
    ask([judge], comparisons(40), book)
    assert len(judge.asked) == 3


def test_a_judge_whose_calls_mostly_fail_is_set_aside_and_the_others_go_on() -> None:
    broken = Counting("broken", lambda shown: [None] * len(shown))
    good = Counting("good", prefers_good)
    report = ask([broken, good], comparisons(300), AnswerBook())
    assert "64 of its 64 calls failed" in report.judges[0].set_aside
    assert len(broken.asked) == 64
    assert len(good.asked) == 300
    assert "The judge broken is set aside" in report.sentences()[0]


def test_a_judge_that_always_says_a_is_set_aside_with_the_reason() -> None:
    stuck = Counting("stuck", lambda shown: [0.97] * len(shown))
    report = ask([stuck, Counting("good", prefers_good)], comparisons(300), AnswerBook())
    assert "shown first, whichever that is" in report.judges[0].set_aside
    assert len(stuck.asked) == 64
    assert not report.judges[1].set_aside


def test_when_no_judge_is_left_judging_stops_and_says_why() -> None:
    judges = [Counting(name, lambda shown: [None] * len(shown)) for name in ("x", "y")]
    with pytest.raises(JudgingStopped, match=r"No judge is left.*The judge x.*The judge y"):
        ask(judges, comparisons(100), AnswerBook())


def test_an_estimate_above_the_budget_asks_nobody() -> None:
    judge = Paid("dear")
    # 100 comparisons of 10 tokens read and 2 written, at 1 each: 1,200.
    assert estimate_cost([judge], comparisons(100), AnswerBook()) == {"dear": pytest.approx(1200)}
    with pytest.raises(JudgingStopped, match=r"about 1200\.00 \(dear 1200\.00\).*1000\.00 allowed"):
        ask([judge], comparisons(100), AnswerBook(), budget=1000)
    assert judge.asked == []


def test_the_estimate_leaves_out_what_is_answered_and_what_is_free() -> None:
    judge, book = Paid("dear"), AnswerBook()
    ask([judge], comparisons(40), book)
    free = Counting("free", prefers_good)
    expected = estimate_cost([judge, free], comparisons(100), book)
    assert expected == {"dear": pytest.approx(720), "free": 0.0}


def test_judging_ends_when_the_true_cost_passes_the_budget_and_keeps_the_answers() -> None:
    class Chatty(Paid):
        def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
            return [Verdict(0.5, "", 10, 200) for _ in comparisons]

    book = AnswerBook()
    with pytest.raises(JudgingStopped, match=r"by the judges' own counts.*is kept"):
        ask([Chatty("chatty")], comparisons(640), book, budget=8000)
    assert len(book) == 64


def test_what_was_spent_before_counts_against_the_budget(tmp_path: Path) -> None:
    book, ledger = AnswerBook(tmp_path / "answers.jsonl"), tmp_path / "spending.jsonl"
    failing = LocalJudge("failing", lambda shown: [None] * len(shown))
    ask([Paid("dear"), failing], comparisons(10), book, spending=Spending(ledger))
    with ledger.open("a") as file:
        file.write('{"judge": "dear", "co')  # a kill
    spending = Spending(ledger)
    assert spending.total == pytest.approx(120)
    judge = Paid("dear")
    with pytest.raises(JudgingStopped, match=r"120\.00 .*, beside the 120\.00 spent before.* 200"):
        ask([judge], comparisons(20), book, budget=200, spending=spending)
    assert judge.asked == []
    ask([judge], comparisons(20), book, budget=240, spending=spending)
    assert len(judge.asked) == 10
    assert Spending(ledger).total == pytest.approx(240)
    # Nothing is open any more, so a budget that is spent stops nobody.
    ask([judge, Counting("free", prefers_good)], comparisons(20), book, budget=1, spending=spending)


def test_calls_that_failed_are_spent_all_the_same() -> None:
    class Silent(Paid):
        def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
            return [Verdict(None, "no score in its answer", 10, 2) for _ in comparisons]

    spending = Spending()
    ask([Silent("silent")], comparisons(10), AnswerBook(), spending=spending)
    assert spending.total == pytest.approx(120)


@pytest.mark.parametrize("line", ["{}", "[]", '{"cost": -1}', '{"cost": "dear"}', "7", "{"])
def test_a_broken_ledger_is_named_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "spending.jsonl"
    path.write_text('{"judge": "j", "cost": 1}\n' + line + "\n")
    with pytest.raises(BadStage, match=r"^Line 2 of .*spending.jsonl is no cost of judging"):
        Spending(path)


def test_a_ledger_that_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadStage, match=r"^spending.jsonl cannot be written: "):
        Spending(tmp_path / "file" / "spending.jsonl").add("j", 1.0)
    with pytest.raises(BadStage, match="cannot be read: "):
        Spending(tmp_path)


def test_judges_of_the_same_name_are_refused() -> None:
    twins: list[Judge] = [Counting("j", prefers_good), Counting("j", prefers_good)]
    with pytest.raises(JudgingStopped, match="same name"):
        ask(twins, comparisons(1), AnswerBook())


def test_a_judge_that_answers_too_little_is_named() -> None:
    with pytest.raises(JudgingStopped, match="1 verdicts on 5"):
        ask([LocalJudge("short", lambda shown: [0.5])], comparisons(5), AnswerBook())


def test_a_judge_that_raises_does_not_cost_the_answers_of_the_others() -> None:
    def raising(shown: Sequence[Comparison]) -> list[float | None]:
        raise RuntimeError("out of memory")

    book, good = AnswerBook(), Counting("good", prefers_good)
    with pytest.raises(RuntimeError, match="out of memory"):
        ask([LocalJudge("raising", raising), good], comparisons(10), book)
    assert len(book) == 10


def test_the_better_grade_wins_equal_grades_tie_and_the_unjudged_stay_out() -> None:
    qrels = {"q": {"a0": 2, "b0": 1, "a1": 1, "b1": 1, "a2": 0, "b2": 3, "a3": 1}}
    pairs = comparisons(5)
    values = [each.preference for each in QrelsJudge(qrels).prefer(pairs)]
    assert values == [1.0, 0.5, 0.0, None, None]
    filled = QrelsJudge(qrels, unjudged="irrelevant")
    assert [each.preference for each in filled.prefer(pairs)] == [1.0, 0.5, 0.0, 1.0, 0.5]
    report = ask([QrelsJudge(qrels)], pairs, AnswerBook()).judges[0]
    assert (report.answered, report.abstained, report.failed) == (3, 2, 0)


def test_people_are_read_in_both_directions_and_averaged(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    rows = [
        {"query_id": "q", "a": "a0", "b": "b0", "preference": "a"},
        {"query_id": "q", "a": "b0", "b": "a0", "preference": "tie"},
        {"query_id": "q", "a": "b1", "b": "a1", "preference": 0.25},
        {"query_id": "q", "a": "a2", "query_b": "r", "b": "z", "preference": 1},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = HumanJudge(path)
    across = Comparison(comparisons(3)[2].a, Side("r", "other", "z", "text"))
    verdicts = judge.prefer([*comparisons(3), across, across.swapped()])
    assert [each.preference for each in verdicts] == [0.75, 0.75, None, 1.0, 0.0]


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "nonsense",
        '{"query_id": "q", "a": "x", "b": "y", "preference": 3}',
        '{"query_id": "q", "a": "x", "b": "y", "preference": "left"}',
    ],
)
def test_a_line_that_is_no_preference_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text(f'{{"query_id": "q", "a": "x", "b": "y", "preference": "a"}}\n{line}\n')
    with pytest.raises(BadStage, match="Line 2 of"):
        HumanJudge(path)


def test_missing_people_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadStage, match="is missing"):
        HumanJudge(tmp_path / "nobody.jsonl")


def test_a_broken_book_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    good = '{"judge": "j", "key": "k", "swapped": false, "preference": 0.5}\n'
    path.write_text(good + '{"judge": "j", "key": "l", "swapped": false, "preference": 7}\n')
    with pytest.raises(BadStage, match="Line 2 of"):
        AnswerBook(path)


def test_a_book_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    book = AnswerBook(tmp_path / "file" / "answers.jsonl")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadStage, match="cannot be written"):
        book.add([Answer("j", "k", False, 0.5)])


def test_copies_of_a_pair_are_asked_once() -> None:
    pairs = comparisons(3)
    assert len(distinct([*pairs, *pairs])) == 3
    assert np.unique([each.key for each in pairs]).size == 3
