"""One model for many threads: order, merging, overload, cancellation, failures, draining."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from rerank.cascade import CascadeReranker, Stage
from rerank.errors import BadInput, Cancelled, DeviceError, Overloaded
from rerank.inference.fused_files import untrained
from rerank.inference.fused_maxsim import FusedMaxSim
from rerank.inference.score_cache import document_key, group_key
from rerank.inference.scorer import OLDEST_EVERY, Scorer, _about, open_scorer
from rerank.inference.scoring import Limits, Scored, Scoring
from rerank.inference.whole_scorer import WholeScorer
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row


class Words:
    """A model whose score of a document is its number of words, and which can be held up.

    A document "boom" breaks its batch; one of more than `memory` words in all does not fit.
    """

    def __init__(self, budget: int = 8, memory: int = 10**9, revision: str = "") -> None:
        self.budget = budget
        self.memory = memory
        self.card = ModelCard("words", "Counts words.", "CPU", "int", revision=revision)
        self.batches: list[list[str]] = []
        self.prepared: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.seconds_per_batch = 0.0

    def prepare(self, request: RerankRequest) -> Prepared:
        self.prepared.append(request.query)
        lengths = [max(len(text.split()), 1) for text in request.documents]
        return Prepared(request, list(request.documents), lengths, request.query, tokenize_ms=1.5)

    def run(self, rows: Sequence[Row]) -> FloatArray:
        texts = [prepared.rows[place] for prepared, place in rows]
        self.batches.append([f"{prepared.request.query}:{place}" for prepared, place in rows])
        assert self.go.wait(20)
        time.sleep(self.seconds_per_batch)
        if any("boom" in text for text in texts):
            raise RuntimeError("the kernel said boom")
        if sum(len(text.split()) for text in texts) > self.memory:
            self.budget = max(self.budget // 2, 1)
            raise MemoryError
        return np.array([len(text.split()) for text in texts], dtype=np.float32)

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        if not np.isfinite(raw).all():
            raise BadInput("No number.")
        return RerankScores(raw, raw / 100, "sigmoid", tokens=sum(prepared.lengths))

    def is_memory_error(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def score(self, request: RerankRequest) -> RerankScores:
        raise AssertionError("the scorer batches")

    @property
    def queries(self) -> list[list[str]]:
        """Whose rows were in each batch."""
        return [sorted({row.split(":")[0] for row in batch}) for batch in self.batches]


class Crowd:
    """Requests sent in a known order, each from a thread of its own, to a model held up."""

    def __init__(self, scorer: Scoring, model: Words) -> None:
        self.scorer, self.model = scorer, model
        self.pool = ThreadPoolExecutor(64)

    def send(self, query: str, documents: Sequence[str], **more: Any) -> Future[Scored]:
        """Returns once the request waits in the scorer."""
        before = self.scorer.stats().waiting_requests
        sent = self.pool.submit(self.scorer.scored, RerankRequest(query, documents), **more)
        wait_until(lambda: sent.done() or self.scorer.stats().waiting_requests > before)
        return sent

    def plug(self) -> Future[Scored]:
        """A request that keeps the model busy until `model.go` is set."""
        self.model.go.clear()
        batches = len(self.model.batches)
        sent = self.pool.submit(self.scorer.scored, RerankRequest("plug", ["x " * 8]))
        wait_until(lambda: len(self.model.batches) > batches)
        return sent


class Kept:
    """A cache in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[tuple[bytes, bytes], float] = {}

    def get_many(self, group: bytes, documents: Sequence[bytes]) -> Sequence[float | None]:
        return [self.values.get((group, document)) for document in documents]

    def put_many(self, group: bytes, values: Mapping[bytes, float]) -> None:
        self.values |= {(group, document): value for document, value in values.items()}


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def model() -> Words:
    return Words()


@pytest.fixture
def scorer(model: Words) -> Iterator[Scorer]:
    made = Scorer(model)
    yield made
    model.go.set()
    assert made.drain(10)


@pytest.fixture
def crowd(scorer: Scorer, model: Words) -> Iterator[Crowd]:
    made = Crowd(scorer, model)
    yield made
    model.go.set()
    made.pool.shutdown()


def test_each_request_gets_its_own_scores_in_its_own_order(scorer: Scorer) -> None:
    got = scorer.scored(RerankRequest("q", ["a b c", "a", "", "a b"]))
    assert got.scores.logits.tolist() == [3.0, 1.0, 0.0, 2.0]
    assert got.scores.tokens == 7  # an empty text costs one
    assert got.scores.tokenize_ms == 1.5 and got.scores.inference_ms > 0
    assert scorer.score(RerankRequest("q", [])).logits.shape == (0,)


def test_rows_of_waiting_requests_go_together(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    sent = [crowd.send(f"r{number}", ["a b", "a"]) for number in range(4)]
    model.go.set()
    assert [each.result().scores.logits.tolist() for each in sent] == [[2.0, 1.0]] * 4
    # Budget 8: four rows of two words each, or of one and two.
    assert model.queries[1:] == [["r0", "r1"], ["r2", "r3"]]


def test_a_batch_holds_no_more_than_the_budget_with_its_padding(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    documents = ["w " * words for words in (5, 1, 3, 2, 12, 4, 1, 1)]
    sent = [crowd.send("a", documents), crowd.send("b", documents[::-1])]
    model.go.set()
    assert sent[0].result().scores.logits.tolist() == [5, 1, 3, 2, 12, 4, 1, 1]
    assert sent[1].result().scores.logits.tolist() == [1, 1, 4, 12, 2, 3, 1, 5]
    for batch in model.batches[1:]:
        words = []
        for row in batch:
            query, place = row.split(":")
            source = documents if query == "a" else documents[::-1]
            words.append(len(source[int(place)].split()))
        assert len(words) == 1 or len(words) * max(words) <= 8


def test_requests_of_about_the_same_size_come_in_turn(crowd: Crowd, model: Words) -> None:
    model.seconds_per_batch = 0.01
    crowd.scorer.score(RerankRequest("measured", ["w " * 800] * 4))  # fast
    crowd.plug()
    longer = crowd.send("longer", ["w " * 8] * 11)
    time.sleep(0.2)
    shorter = [crowd.send(f"shorter{number}", ["w " * 8] * 10) for number in range(3)]
    model.go.set()
    longer.result(10)
    assert model.queries[5:16] == [["longer"]] * 11
    for each in shorter:
        each.result(10)


def test_a_short_request_does_not_wait_for_a_long_one(crowd: Crowd, model: Words) -> None:
    model.seconds_per_batch = 0.01
    crowd.scorer.score(RerankRequest("measured", ["w " * 8] * 4))
    batches = len(model.batches)
    crowd.plug()
    long = crowd.send("long", ["w " * 8] * 40)
    short = crowd.send("short", ["w " * 8])
    model.go.set()
    short.result(10)
    assert model.queries[batches + 1] == ["short"]
    assert not long.done() or len(model.batches) == batches + 42
    long.result(10)


def test_a_long_request_is_never_starved_by_short_ones(crowd: Crowd, model: Words) -> None:
    """Short ones never stop coming: three stand waiting before every batch."""
    model.seconds_per_batch = 0.002
    crowd.plug()
    long = crowd.send("long", ["w " * 8] * 10)
    shorts = [crowd.send(f"s{number}", ["w " * 8]) for number in range(12)]
    stop = threading.Event()

    def keep_coming() -> None:
        while not stop.is_set():
            crowd.scorer.scored(RerankRequest("more", ["w " * 8]))

    comers = [crowd.pool.submit(keep_coming) for _ in range(8)]
    model.go.set()
    long.result(20)
    stop.set()
    for each in [*shorts, *comers]:
        each.result(20)
    began = [number for number, queries in enumerate(model.queries) if queries == ["long"]]
    assert len(began) == 10
    gaps = np.diff([0, *began])
    assert gaps.max() <= OLDEST_EVERY, "of any four batches in a row one is the oldest's"
    # And the short ones did go first in between.
    assert began[-1] >= 20


def test_too_much_waiting_is_refused_with_a_sentence_that_says_how_much(model: Words) -> None:
    scorer = Scorer(model, Limits(requests=3, tokens=100))
    crowd = Crowd(scorer, model)
    crowd.plug()
    # The plug's own row is under way, yet its request still counts.
    sent = [crowd.send("a", ["w " * 30]), crowd.send("b", ["w"])]
    with pytest.raises(Overloaded, match=r"^The reranker is busy: 3 requests are waiting"):
        scorer.score(RerankRequest("c", ["w"]))
    assert "c" not in model.prepared, "what is refused is not tokenised first"
    model.go.set()
    for each in sent:
        each.result(10)
    assert scorer.score(RerankRequest("d", ["w"])).logits.tolist() == [1.0]
    crowd.pool.shutdown()


def test_one_request_may_be_longer_than_the_bound_on_tokens(model: Words) -> None:
    scorer = Scorer(model, Limits(tokens=100))
    assert len(scorer.score(RerankRequest("huge", ["w " * 8] * 50)).logits) == 50
    crowd = Crowd(scorer, model)
    crowd.plug()
    crowd.send("a", ["w " * 8] * 10)
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        scorer.score(RerankRequest("b", ["w " * 30]))
    model.go.set()
    crowd.pool.shutdown()


def test_a_request_that_would_be_late_is_refused_at_once(model: Words) -> None:
    model.seconds_per_batch = 0.05  # 160 words a second
    scorer = Scorer(model)
    scorer.score(RerankRequest("measured", ["w " * 8] * 4))
    crowd = Crowd(scorer, model)
    crowd.plug()
    sent = crowd.send("a", ["w " * 8] * 10)  # half a second
    with pytest.raises(Overloaded, match=r"waiting, about a second of work\. Try"):
        scorer.scored(RerankRequest("b", ["w " * 8] * 11), deadline=time.time() + 0.4)
    # A shorter one goes first, so it is in time.
    model.go.set()
    assert scorer.scored(RerankRequest("c", ["w"]), deadline=time.time() + 1).scores.tokens == 1
    sent.result(10)
    crowd.pool.shutdown()


@pytest.mark.parametrize(
    ("tokens", "speed", "said"),
    [
        (500, 0.0, ""),
        (500, 1000.0, ", about a second of work"),
        (2000, 1000.0, ", about 2 seconds of work"),
        (150_000, 1000.0, ", about 2 minutes of work"),
    ],
)
def test_the_work_that_waits_is_told_in_the_units_people_use(
    tokens: int, speed: float, said: str
) -> None:
    assert _about(tokens, speed) == said


def test_a_cancelled_request_leaves_between_two_batches(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    nobody = threading.Event()
    gone = crowd.send("gone", ["w " * 8] * 50, cancelled=nobody.is_set)
    stays = crowd.send("stays", ["w " * 8] * 2)
    nobody.set()
    model.go.set()
    with pytest.raises(Cancelled, match="Nobody waits"):
        gone.result(10)
    assert stays.result(10).scores.logits.tolist() == [8.0, 8.0]
    assert not any("gone" in queries for queries in model.queries)


def test_a_request_past_its_deadline_leaves_between_two_batches(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    sent = crowd.send("late", ["w"], deadline=time.time() + 0.02)
    time.sleep(0.03)
    model.go.set()
    with pytest.raises(Cancelled, match="too late"):
        sent.result(10)


def test_the_guilty_row_fails_its_own_request_only(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    good = [crowd.send(f"good{number}", ["a", "b c"]) for number in range(3)]
    bad = crowd.send("bad", ["a", "boom", "b"])
    model.budget = 1000
    model.go.set()
    with pytest.raises(DeviceError, match=r"failed on one of the texts .*said boom"):
        bad.result(10)
    assert [each.result(10).scores.logits.tolist() for each in good] == [[1.0, 2.0]] * 3
    assert crowd.scorer.score(RerankRequest("after", ["a b"])).logits.tolist() == [2.0]


def test_a_batch_out_of_memory_is_halved_and_tried_again(model: Words) -> None:
    model.budget, model.memory = 64, 10
    scorer = Scorer(model)
    documents = ["w " * 4] * 16
    assert scorer.score(RerankRequest("q", documents)).logits.tolist() == [4.0] * 16
    assert model.budget < 64
    tried = len(model.batches)
    assert scorer.score(RerankRequest("again", documents)).logits.tolist() == [4.0] * 16
    assert len(model.batches) - tried <= tried, "the smaller budget is remembered"
    with pytest.raises(DeviceError, match="even one of the documents"):
        scorer.score(RerankRequest("too long", ["w", "w " * 11]))
    assert scorer.score(RerankRequest("fits", ["w w"])).logits.tolist() == [2.0]


def test_a_model_that_breaks_its_own_rules_does_not_end_the_thread() -> None:
    class Odd(Words):
        broken = True

        def run(self, rows: Sequence[Row]) -> FloatArray:
            return super().run(rows)[1:] if self.broken else super().run(rows)

        @property
        def budget(self) -> int:
            if self.broken and len(self.batches) > 3:
                raise KeyError("no budget")
            return 8

        @budget.setter
        def budget(self, value: int) -> None: ...

    model = Odd()
    scorer = Scorer(model)
    for _ in range(3):
        with pytest.raises((DeviceError, KeyError)):
            scorer.score(RerankRequest("q", ["a", "b"]))
    model.broken = False
    assert scorer.score(RerankRequest("q", ["a", "b b"])).logits.tolist() == [1.0, 2.0]


def test_a_cancel_check_that_fails_fails_its_request_only(crowd: Crowd, model: Words) -> None:
    def broken() -> bool:
        raise ValueError("no idea")

    crowd.plug()
    bad = crowd.send("bad", ["a"], cancelled=broken)
    good = crowd.send("good", ["a"])
    model.go.set()
    assert good.result(10).scores.logits.tolist() == [1.0]
    with pytest.raises(ValueError, match="no idea"):
        bad.result(10)


def test_draining_finishes_what_was_accepted_and_refuses_the_rest(model: Words) -> None:
    scorer = Scorer(model)
    crowd = Crowd(scorer, model)
    crowd.plug()
    accepted = crowd.send("accepted", ["w " * 8] * 5)
    assert not scorer.drain(0.05)
    with pytest.raises(Overloaded, match="stopping"):
        scorer.score(RerankRequest("new", ["w"]))
    model.go.set()
    assert scorer.drain(10)
    assert accepted.result(10).scores.logits.tolist() == [8.0] * 5
    crowd.pool.shutdown()


def test_waits_are_measured_apart(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    began = time.perf_counter()
    sent = crowd.send("q", ["w " * 8] * 2)
    time.sleep(0.1)
    model.seconds_per_batch = 0.05
    model.go.set()
    got = sent.result(10)
    whole = (time.perf_counter() - began) * 1000
    assert 90 < got.queue_ms < whole
    assert 95 < got.scores.inference_ms < whole - 90


def test_the_figures_say_what_waits_and_how_fast_it_goes(crowd: Crowd, model: Words) -> None:
    crowd.plug()
    crowd.send("a", ["w " * 8] * 3)
    stats = crowd.scorer.stats()
    assert (stats.waiting_requests, stats.waiting_rows, stats.waiting_tokens) == (2, 3, 24)
    model.go.set()
    wait_until(lambda: crowd.scorer.stats().waiting_requests == 0)
    stats = crowd.scorer.stats()
    assert (stats.batches, stats.rows, stats.tokens) == (4, 4, 32)
    assert stats.rows_per_batch == 1.0 and stats.tokens_per_second > 0


def test_known_scores_are_not_computed_again() -> None:
    model, cache = Words(revision="r1"), Kept()
    scorer = Scorer(model, cache=cache)
    first = scorer.scored(RerankRequest("q", ["a b", "c"]))
    batches = len(model.batches)
    again = scorer.scored(RerankRequest("q", ["c", "new one here", "a b", "c"]))
    assert (first.cached, again.cached) == (0, 3)
    assert again.scores.logits.tolist() == [1.0, 3.0, 2.0, 1.0]
    assert model.batches[batches:] == [["q:1"]]
    assert again.scores.tokens == 3
    whole = scorer.scored(RerankRequest("q", ["c"]))
    assert whole.cached == 1 and whole.scores.inference_ms == 0.0
    # Another prompt or another model knows nothing of it.
    assert scorer.scored(RerankRequest("other", ["c"])).cached == 0
    assert Scorer(Words(revision="r2"), cache=cache).scored(RerankRequest("q", ["c"])).cached == 0


def test_a_model_without_a_revision_is_never_cached() -> None:
    cache = Kept()
    scorer = Scorer(Words(revision=""), cache=cache)
    scorer.score(RerankRequest("q", ["a"]))
    assert scorer.scored(RerankRequest("q", ["a"])).cached == 0 and not cache.values


def test_keys_differ_wherever_scores_may_differ() -> None:
    assert group_key("a", "bc") != group_key("ab", "c")
    assert document_key("a\ud800") != document_key("a?")
    assert len(document_key("x" * 10**6)) == 16


class Remote:
    """Answers whole requests only, two at a time at most as far as it can tell."""

    card = ModelCard("remote", "", "elsewhere", "")

    def __init__(self) -> None:
        self.under_way = self.most = 0
        self.go = threading.Event()
        self.lock = threading.Lock()

    def score(self, request: RerankRequest) -> RerankScores:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.go.wait(10)
        with self.lock:
            self.under_way -= 1
        count = len(request.documents)
        return RerankScores(np.ones(count, np.float32), np.ones(count, np.float32), "published")


def test_a_reranker_of_whole_requests_is_called_a_few_at_once() -> None:
    remote = Remote()
    scoring = open_scorer(remote, Limits(requests=2, calls=2))
    assert isinstance(scoring, WholeScorer)
    with ThreadPoolExecutor(8) as pool:
        request = RerankRequest("q", ["a", "b"])
        calls = [pool.submit(scoring.scored, request) for _ in range(2)]
        wait_until(lambda: remote.under_way == 2)
        nobody = threading.Event()
        waiting = pool.submit(scoring.scored, request, None, nobody.is_set)
        late = pool.submit(scoring.scored, request, time.time() + 0.05)
        wait_until(lambda: scoring.stats().waiting_requests == 2)
        with pytest.raises(Overloaded, match="2 requests are waiting"):
            scoring.score(request)
        with pytest.raises(Cancelled, match="too late"):
            late.result(10)
        nobody.set()
        with pytest.raises(Cancelled, match="Nobody"):
            waiting.result(10)
        assert not scoring.drain(0.01)
        remote.go.set()
        assert all(len(call.result(10).scores.logits) == 2 for call in calls)
        assert scoring.drain(10) and remote.most == 2
        with pytest.raises(Overloaded, match="stopping"):
            scoring.score(request)


def test_the_models_of_a_cascade_are_served_by_a_thread_each() -> None:
    cheap, strong = Words(), Words()
    cheap.score = strong.score = None  # type: ignore[assignment,method-assign]
    scoring = open_scorer(CascadeReranker([Stage(cheap, keep=2), Stage(strong)]))
    with ThreadPoolExecutor(4) as pool:
        request = RerankRequest("q", ["a", "b b b", "c c"])
        every = list(pool.map(scoring.score, [request] * 4))
    for scores in every:
        assert np.argsort(-scores.logits).tolist() == [1, 2, 0]
    assert {row.split(":")[1] for batch in strong.batches for row in batch} == {"0", "1"}


@pytest.mark.parametrize("seed", range(2))
def test_merged_requests_score_as_if_they_were_alone(seed: int) -> None:
    torch.set_num_threads(1)
    model = FusedMaxSim(untrained(), torch.device("cpu"), torch.float32)
    random = np.random.default_rng(seed)
    vocabulary = ["water", "tomato", "plant", "violin", "history", "garden", "bread", "river"]

    def text(words: int) -> str:
        return " ".join(random.choice(vocabulary, words))

    requests = [
        RerankRequest(text(3), [text(int(n)) for n in random.integers(1, 60, 7)]) for _ in range(12)
    ]
    alone = [model.score(request).logits for request in requests]
    scorer = open_scorer(model)
    assert isinstance(scorer, Scorer)
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(scorer.score, requests))
    assert scorer.stats().rows_per_batch > 7
    for expected, found in zip(alone, together, strict=True):
        assert np.abs(expected - found.logits).max() < 1e-5
