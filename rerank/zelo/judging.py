"""Asking judges which of two documents is better, so that every answer is kept and none is made up.

Each judge sees each pair once, in an order drawn by chance. A failed call is no answer. Answers are
written down as they come; what is written is not asked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

from rerank.errors import JudgingStopped
from rerank.inference.prompts import with_instruction

from .answers import Answer, AnswerBook
from .progress import Bar
from .records import Candidates
from .spending import Price, Spending, money

# Comparisons a judge gets at once; answers are written down after each such group.
GROUP = 64
# From this many calls a judge is set aside when more than half of them failed.
FEWEST_CALLS = 20
LARGEST_FAILED_SHARE = 0.5
# From this many answers a judge is set aside that chooses by place: order is drawn by chance, so
# an honest judge prefers the document shown first about half the time.
FEWEST_ANSWERS = 60
FURTHEST_FROM_HALF = 0.4


@dataclass(frozen=True)
class Side:
    """A document and the query it should serve; `query` with its instruction."""

    query_id: str
    query: str
    document_id: str
    text: str


def sides_of(queries: Iterable[Candidates]) -> dict[str, dict[str, Side]]:
    """query id -> document id -> what judges read of it."""
    return {
        query.query_id: {
            document.id: Side(
                query.query_id,
                with_instruction(query.query, query.instruction),
                document.id,
                document.text,
            )
            for document in query.documents
        }
        for query in queries
    }


@dataclass(frozen=True)
class Comparison:
    """Which of two documents is better for its query; usually both serve the same."""

    a: Side
    b: Side

    @property
    def is_across_queries(self) -> bool:
        return self.a.query_id != self.b.query_id

    def swapped(self) -> Comparison:
        return Comparison(self.b, self.a)

    @cached_property
    def key(self) -> str:
        """Names the texts compared, whatever their ids."""
        parts = (self.a.query, self.a.text, self.b.query, self.b.text)
        text = "\x00".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Verdict:
    """`preference`: P(a is better) in [0, 1]; None when the judge has none. `trouble`: why the call
    failed, "" when it did not. Tokens as the judge counted them."""

    preference: float | None
    trouble: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class Judge(Protocol):
    """`name` stands for model and prompt: answers are kept under it, so change it with either."""

    @property
    def name(self) -> str: ...

    @property
    def price(self) -> Price | None:
        """None: free of charge."""
        ...

    def expected_tokens(self, comparison: Comparison) -> int:
        """About how many tokens it reads for this; 0 where nobody counts."""
        ...

    def prefer(self, comparisons: Sequence[Comparison]) -> Sequence[Verdict]:
        """One verdict each, in the order given. A comparison that fails is a verdict with trouble,
        never an exception."""
        ...


@runtime_checkable
class Stoppable(Protocol):
    """A judge that takes its time, and can be told to make no more calls."""

    def stop(self) -> None: ...


@dataclass
class JudgeReport:
    """`asked`: calls of this run. `kept`: answers known before. `abstained`: no opinion, which is
    no failure. `mean_first`: mean preference for the document shown first. `cost`: of this run.
    `set_aside`: a sentence when the judge was not asked further, else ""."""

    name: str
    asked: int = 0
    answered: int = 0
    kept: int = 0
    abstained: int = 0
    failed: int = 0
    mean_first: float | None = None
    cost: float = 0.0
    set_aside: str = ""
    last_trouble: str = ""


@dataclass(frozen=True)
class JudgingReport:
    judges: tuple[JudgeReport, ...] = field(default_factory=tuple)

    @property
    def cost(self) -> float:
        return sum(judge.cost for judge in self.judges)

    def sentences(self) -> list[str]:
        """What a person should know, a line each judge."""
        return [_sentence(judge) for judge in self.judges]


def is_swapped(judge: str, comparison: Comparison, seed: int) -> bool:
    """Whether this judge is shown b first: a coin of its own for each judge and comparison, the
    same whenever it is tossed."""
    coin = hashlib.sha256(f"{seed}\x00{judge}\x00{comparison.key}".encode()).digest()
    return bool(coin[0] & 1)


def estimate_cost(
    judges: Sequence[Judge], comparisons: Sequence[Comparison], book: AnswerBook, seed: int = 0
) -> Mapping[str, float]:
    """judge -> expected cost of what it has not answered yet, in the currency of its price.

    Tokens are guessed from the texts, so expect a fifth more or less.
    """
    expected = {}
    for judge in judges:
        price = judge.price
        if price is None:
            expected[judge.name] = 0.0
            continue
        open_ones = [each for each in comparisons if not _is_answered(judge, each, book, seed)]
        read = sum(judge.expected_tokens(each) for each in open_ones)
        expected[judge.name] = price.of(read, price.output_tokens * len(open_ones))
    return expected


def ask(
    judges: Sequence[Judge],
    comparisons: Sequence[Comparison],
    book: AnswerBook,
    *,
    seed: int = 0,
    budget: float | None = None,
    spending: Spending | None = None,
) -> JudgingReport:
    """Has every judge answer every comparison that `book` holds no answer for.

    `budget`: the most that `spending` may come to, with what was spent before. Judging does not
    begin when the estimate is above it, and ends when the judges' own counts pass it. A judge of
    which more than half the calls fail, or that chooses by place, is set aside, and the others go
    on. Raises JudgingStopped when the budget is too small or when all judges are set aside; answers
    so far stay in `book`.
    """
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise JudgingStopped(
            f"Two judges have the same name, {twice}, and answers are kept by name: set another "
            "name for one of them, or take it out."
        )
    spending = spending or Spending()
    spending.check_estimate(estimate_cost(judges, comparisons, book, seed), budget)
    reports = tuple(JudgeReport(judge.name) for judge in judges)
    whole = JudgingReport(reports)
    total = len(judges) * len(comparisons)
    with (
        Bar("judging", "answers", total) as bar,
        ThreadPoolExecutor(max(1, len(judges))) as pool,
    ):
        for start in range(0, len(comparisons), GROUP):
            group = comparisons[start : start + GROUP]
            asked = [
                _Asking(judge, report, group, book, seed)
                for judge, report in zip(judges, reports, strict=True)
                if not report.set_aside
            ]
            if any(asking.open and asking.judge.price for asking in asked):
                spending.check(budget)
            _ask_all(asked, pool, book, spending)
            bar.update(len(judges) * len(group))
            if judges and all(report.set_aside for report in reports):
                raise JudgingStopped(
                    "No judge is left. " + " ".join(report.set_aside for report in reports)
                )
    return whole


def choice_by_place(count: int, mean: float) -> str:
    """A sentence when `count` preferences with this mean for the document shown first can only come
    from its place, "" otherwise."""
    if count < FEWEST_ANSWERS or abs(mean - 0.5) <= FURTHEST_FROM_HALF:
        return ""
    place = "first" if mean > 0.5 else "second"
    return (
        f"it prefers the document shown {place}, whichever that is (mean preference for the first "
        f"{mean:.2f} in {count} answers)"
    )


def _is_answered(judge: Judge, comparison: Comparison, book: AnswerBook, seed: int) -> bool:
    return (
        book.get(judge.name, comparison.key, is_swapped(judge.name, comparison, seed)) is not None
    )


def _ask_all(
    asked: Sequence[_Asking], pool: ThreadPoolExecutor, book: AnswerBook, spending: Spending
) -> None:
    """All judges at once. One that raises does not cost the answers of the others."""
    failures: list[Exception] = []
    waiting = [(asking, pool.submit(asking.ask)) for asking in asked]
    try:
        _write_all(waiting, book, spending, failures)
    except KeyboardInterrupt:
        # Calls under way are paid for: they are waited for and kept, and no others are made.
        for asking in asked:
            if isinstance(asking.judge, Stoppable):
                asking.judge.stop()
        _write_all(waiting, book, spending, failures)
        raise
    if failures:
        raise failures[0]


def _write_all(
    waiting: list[tuple[_Asking, Future[Sequence[Verdict]]]],
    book: AnswerBook,
    spending: Spending,
    failures: list[Exception],
) -> None:
    """Takes from `waiting` what was written down."""
    while waiting:
        asking, future = waiting[0]
        try:
            asking.write_down(future.result(), book, spending)
        except Exception as error:
            failures.append(error)
        waiting.pop(0)


class _Asking:
    """One judge and the part of a group that it has not answered yet."""

    def __init__(
        self,
        judge: Judge,
        report: JudgeReport,
        group: Sequence[Comparison],
        book: AnswerBook,
        seed: int,
    ) -> None:
        self.judge = judge
        self.report = report
        self.open = [each for each in group if not _is_answered(judge, each, book, seed)]
        self.orders = [is_swapped(judge.name, each, seed) for each in self.open]
        report.kept += len(group) - len(self.open)

    def ask(self) -> Sequence[Verdict]:
        """Runs in a thread of its own, so that slow judges do not wait for each other."""
        shown = [
            each.swapped() if swapped else each
            for each, swapped in zip(self.open, self.orders, strict=True)
        ]
        verdicts = self.judge.prefer(shown) if shown else []
        if len(verdicts) != len(shown):
            raise JudgingStopped(
                f"The judge {self.judge.name} gave {len(verdicts)} verdicts on {len(shown)} "
                "comparisons."
            )
        return verdicts

    def write_down(self, verdicts: Sequence[Verdict], book: AnswerBook, spending: Spending) -> None:
        book.add(
            Answer(self.judge.name, each.key, swapped, verdict.preference)
            for each, swapped, verdict in zip(self.open, self.orders, verdicts, strict=True)
            if _counts(verdict)
        )
        before = self.report.cost
        for verdict in verdicts:
            _count(self.judge, verdict, self.report)
        spending.add(self.judge.name, self.report.cost - before)
        _judge_the_judge(self.judge, book, self.report)


def _counts(verdict: Verdict) -> bool:
    """Whether it is an answer: a number within [0, 1], or an abstention without trouble."""
    preference = verdict.preference
    return not verdict.trouble and (preference is None or 0.0 <= preference <= 1.0)


def _count(judge: Judge, verdict: Verdict, report: JudgeReport) -> None:
    report.asked += 1
    if judge.price is not None:
        report.cost += judge.price.of(verdict.input_tokens, verdict.output_tokens)
    if not _counts(verdict):
        report.failed += 1
        report.last_trouble = verdict.trouble or f"It answered {verdict.preference}."
    elif verdict.preference is None:
        report.abstained += 1
    else:
        report.answered += 1


def _judge_the_judge(judge: Judge, book: AnswerBook, report: JudgeReport) -> None:
    count, mean = book.preference_for_first(judge.name)
    report.mean_first = mean if count else None
    if report.asked >= FEWEST_CALLS and report.failed > LARGEST_FAILED_SHARE * report.asked:
        report.set_aside = (
            f"The judge {judge.name} is set aside: {report.failed} of its {report.asked} calls "
            f"failed. The last one: {report.last_trouble}"
        )
    elif by_place := choice_by_place(count, mean):
        report.set_aside = f"The judge {judge.name} is set aside: {by_place}."


def _sentence(report: JudgeReport) -> str:
    parts = [f"{report.name}: {report.answered} answers"]
    if report.kept:
        parts.append(f"{report.kept} known before")
    if report.abstained:
        parts.append(f"{report.abstained} without opinion")
    if report.failed:
        parts.append(f"{report.failed} failed and not counted ({report.last_trouble})")
    if report.cost:
        parts.append(f"cost {money(report.cost)}")
    if report.mean_first is not None:
        parts.append(f"preference for the document shown first {report.mean_first:.2f}")
    return ", ".join(parts) + "." + (f" {report.set_aside}" if report.set_aside else "")


def distinct(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Each text pair once, in order."""
    return list({each.key: each for each in comparisons}.values())
