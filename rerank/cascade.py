"""Rerankers one behind the other: a cheap one reads all candidates, each next one the best of what
is left, within a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rerank.errors import Cancelled, EndpointError, RerankError
from rerank.ranking.ranks import hold_to_order, scores_by_rank
from rerank.types import FloatArray, ModelCard, Reranker, RerankRequest, RerankScores

# What a document gets that no stage has read.
UNREAD_LOGIT = -100.0
# Share of the newest call in a stage's measured rate.
NEWEST_SHARE = 0.5
# What remains of a rate after each time that it kept its stage from running: a rate that is never
# measured again must not rule for ever.
TRUST_LEFT = 0.9


@dataclass(frozen=True)
class Stage:
    """`keep`: how many of its best documents the next stage reads; the last stage's is not used."""

    reranker: Reranker
    keep: int = 0


class CascadeReranker:
    """Order: the documents of the last stage that answered, in its order, then those of the stage
    before it, and so on.

    Scores: each document's are those of the last stage that read it, lowered where they would
    otherwise not sort in this order (`hold_to_order`), so the best ones keep the strongest model's
    own numbers; `scale` is that of the last stage that answered. When that stage only ranks, all
    scores are by rank.

    `budget_ms`, `budget_pairs`: no further stage begins when the time it should take, by the rate
    of its earlier calls, or its pairs exceed what is left. The first stage always runs. A stage
    under way is not interrupted. A stage that fails leaves the order as it was. `notes` tells of
    both.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        budget_ms: float | None = None,
        budget_pairs: int | None = None,
        name: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not stages:
            raise ValueError("A cascade needs at least one stage.")
        if any(stage.keep < 1 for stage in stages[:-1]):
            raise ValueError("Every stage but the last must keep at least one document.")
        self._stages = tuple(stages)
        self._budget_ms = budget_ms
        self._budget_pairs = budget_pairs
        self._clock = clock
        self._ms_per_pair: dict[int, float] = {}
        cards = [stage.reranker.card for stage in self._stages]
        steps = " → ".join(card.name for card in cards)
        self.card = ModelCard(
            name=name or steps,
            description=f"A cascade, each model on the best of the one before: {steps}.",
            device=", ".join(dict.fromkeys(card.device for card in cards)),
            dtype=", ".join(dict.fromkeys(card.dtype for card in cards)),
            follows_instructions=cards[-1].follows_instructions,
            extra={"stages": steps},
        )

    @property
    def rerankers(self) -> tuple[Reranker, ...]:
        """Of the stages, in their order."""
        return tuple(stage.reranker for stage in self._stages)

    def wrap_stages(self, wrap: Callable[[Reranker], Reranker]) -> None:
        """From now on each stage answers through what `wrap` makes of its reranker, such as one
        that may be asked by many threads."""
        self._stages = tuple(
            replace(stage, reranker=wrap(stage.reranker)) for stage in self._stages
        )

    def score(self, request: RerankRequest) -> RerankScores:
        """`truncated` is that of the stage that cut most. Raises what the last stage raised when no
        stage answered, and Cancelled at once."""
        progress = _Progress(request)
        started = self._clock()
        failure: RerankError | None = None
        for number, stage in enumerate(self._stages):
            places = progress.order[: self._stages[number - 1].keep] if number else progress.order
            spent_ms = (self._clock() - started) * 1000
            refusal = self._refusal(number, len(places), spent_ms, progress.pairs)
            if refusal:
                progress.notes.append(refusal)
                break
            try:
                self._run(number, progress, list(places))
            except Cancelled:
                raise
            except RerankError as error:
                failure = error
                name = stage.reranker.card.name
                progress.notes.append(f"{name} failed, the order before it stands: {error}")
        if failure is not None and not progress.answers:
            raise failure
        return progress.scores()

    def _run(self, number: int, progress: _Progress, places: list[int]) -> None:
        """Raises RerankError and leaves the progress as it was."""
        started = self._clock()
        reranker = self._stages[number].reranker
        progress.pairs += len(places)
        try:
            scores = reranker.score(progress.part(places))
            if len(scores.logits) != len(places) or not np.isfinite(scores.logits).all():
                raise EndpointError(f"{reranker.card.name} gave scores that are no numbers.")
        except RerankError:
            self._measure(number, len(places), started, failed=True)
            raise
        self._measure(number, len(places), started)
        progress.keep(places, scores)

    def _refusal(self, number: int, pairs: int, spent_ms: float, spent_pairs: int) -> str:
        """Why a stage may not begin; "" when it may."""
        if number == 0 or pairs == 0:
            return ""
        name = self._stages[number].reranker.card.name
        if self._budget_pairs is not None and spent_pairs + pairs > self._budget_pairs:
            left = max(0, self._budget_pairs - spent_pairs)
            return f"{name} was left out: its {pairs} pairs exceed the {left} left of the budget."
        rate = self._ms_per_pair.get(number, 0.0)
        if self._budget_ms is not None and spent_ms + rate * pairs > self._budget_ms:
            self._ms_per_pair[number] = rate * TRUST_LEFT
            left_ms = max(0.0, self._budget_ms - spent_ms)
            return (
                f"{name} was left out: the {rate * pairs:.0f} ms it should take exceed the "
                f"{left_ms:.0f} ms left of the budget."
            )
        return ""

    def _measure(self, number: int, pairs: int, started: float, failed: bool = False) -> None:
        """A stage that fails slowly costs what it costs; one that fails at once is not fast."""
        if pairs == 0:
            return
        newest = (self._clock() - started) * 1000 / pairs
        before = self._ms_per_pair.get(number)
        if failed:
            self._ms_per_pair[number] = max(newest, before or 0.0)
        elif before is None:
            self._ms_per_pair[number] = newest
        else:
            self._ms_per_pair[number] = (1 - NEWEST_SHARE) * before + NEWEST_SHARE * newest


class _Progress:
    """One request on its way down: `order` holds places, best first."""

    def __init__(self, request: RerankRequest) -> None:
        count = len(request.documents)
        self._request = request
        self.order = list(range(count))
        self.pairs = 0
        self.answers: list[RerankScores] = []
        self.notes: list[str] = []
        self._logits: FloatArray = np.full(count, UNREAD_LOGIT, dtype=np.float32)
        self._relevance: FloatArray = np.zeros(count, dtype=np.float32)

    def part(self, places: Sequence[int]) -> RerankRequest:
        """The request for these documents, in this order."""
        whole = self._request
        return RerankRequest(
            query=whole.query,
            documents=[whole.documents[place] for place in places],
            instruction=whole.instruction,
            priors=None if whole.priors is None else [whole.priors[place] for place in places],
        )

    def keep(self, places: list[int], scores: RerankScores) -> None:
        """Puts the first `places` of the order in the order of their new scores."""
        by_logit = np.argsort(-scores.logits, kind="stable")
        self.order[: len(places)] = [places[at] for at in by_logit]
        self._logits[places] = scores.logits
        self._relevance[places] = scores.relevance
        self.answers.append(scores)
        self.notes.extend(scores.notes)

    def scores(self) -> RerankScores:
        scale = self.answers[-1].scale
        if scale == "rank":
            logits, relevance = scores_by_rank(self.order)
        else:
            logits, relevance = hold_to_order(self.order, self._logits, self._relevance)
        return RerankScores(
            logits=logits,
            relevance=relevance,
            scale=scale,
            truncated=max(answer.truncated for answer in self.answers),
            tokens=sum(answer.tokens for answer in self.answers),
            tokenize_ms=sum(answer.tokenize_ms for answer in self.answers),
            inference_ms=sum(answer.inference_ms for answer in self.answers),
            notes=tuple(self.notes),
        )
