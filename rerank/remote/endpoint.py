"""A reranker behind someone's HTTP endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rerank.errors import BadInput, EndpointError
from rerank.inference.prompts import with_instruction
from rerank.inference.texts import sendable
from rerank.remote.client import JsonClient, TooLarge
from rerank.remote.dialects import (
    BLANK_RAW,
    Answer,
    Dialect,
    Floats,
    logits_and_relevance,
    plan_parts,
    read_answer,
    request_body,
)
from rerank.types import ModelCard, RerankRequest, RerankScores

# More than any rerank model reads; what is beyond would only be carried to be cut there.
MAX_DOCUMENT_CHARACTERS = 200_000
MAX_QUERY_CHARACTERS = 50_000


class EndpointReranker:
    """Scores by an endpoint of one of the dialects.

    Requests over the dialect's limits are sent as several, `parallel` of them at a time; all must
    answer, or the whole fails. A blank document is not sent, since several services refuse a
    request for one: it gets relevance 0. `raw_scores` asks the endpoint for logits.
    `model_revision`: a promise that the endpoint's scores stay what they are; "" promises nothing.
    """

    def __init__(
        self,
        dialect: Dialect,
        client: JsonClient,
        model: str = "",
        *,
        name: str = "",
        raw_scores: bool = False,
        extra: Mapping[str, Any] | None = None,
        max_documents: int | None = None,
        max_request_bytes: int | None = None,
        max_document_characters: int = MAX_DOCUMENT_CHARACTERS,
        parallel: int = 4,
        model_revision: str = "",
    ) -> None:
        self._dialect = dialect
        self._client = client
        self._model = model
        self._raw_scores = raw_scores
        self._extra = dict(extra or {})
        self._max_documents = max_documents or dialect.max_documents
        self._max_request_bytes = max_request_bytes or dialect.max_request_bytes
        self._max_document_characters = max_document_characters
        self._parallel = parallel
        promised = f"{dialect.name} {client.address} {model} {raw_scores} {self._extra}"
        self.card = ModelCard(
            name=name or model or dialect.name,
            description=(
                f"The model {model} behind an endpoint at {client.host}."
                if model
                else f"The model that the endpoint at {client.host} serves."
            ),
            device=client.host,
            dtype="remote",
            revision=f"{promised} {model_revision}" if model_revision else "",
            extra={"dialect": dialect.name},
        )

    def score(self, request: RerankRequest) -> RerankScores:
        """`tokens` as the endpoint counts them, 0 where it does not. Raises BadInput, and
        EndpointError when any document remains without a score."""
        started = time.perf_counter()
        query = sendable(with_instruction(request.query, request.instruction))
        if len(query) > MAX_QUERY_CHARACTERS:
            raise BadInput(
                f"The query and its instruction are {len(query):,} characters long; an endpoint is "
                f"sent {MAX_QUERY_CHARACTERS:,} at most."
            )
        room = self._max_document_characters
        documents = [sendable(document[:room]) for document in request.documents]
        sent = [place for place, document in enumerate(documents) if document.strip()]
        parts = [
            [sent[at] for at in part]
            for part in plan_parts(
                [len(documents[place].encode()) for place in sent],
                len(query.encode()),
                self._max_documents,
                self._max_request_bytes,
                self._dialect.counts_pairs,
            )
        ]
        planned = time.perf_counter()
        call = _Call(query, documents, blank=BLANK_RAW if self._raw_scores else 0.0)
        if parts:
            self._score_parts(call, parts)
        logits, relevance = logits_and_relevance(call.scores, self._raw_scores)
        return RerankScores(
            logits=logits,
            relevance=relevance,
            scale="sigmoid" if self._raw_scores else "published",
            truncated=sum(1 for document in request.documents if len(document) > room),
            tokens=call.tokens,
            tokenize_ms=(planned - started) * 1000,
            inference_ms=(time.perf_counter() - planned) * 1000,
        )

    def close(self) -> None:
        self._client.close()

    def _score_parts(self, call: _Call, parts: list[list[int]]) -> None:
        wanted = sum(map(len, parts))

        async def work(deadline: float) -> None:
            slots = asyncio.Semaphore(self._parallel)
            try:
                async with asyncio.TaskGroup() as group:
                    for part in parts:
                        group.create_task(self._score_part(call, part, slots, deadline))
            except ExceptionGroup as failures:
                raise _first(failures) from None

        try:
            self._client.run(work)
        except EndpointError as error:
            raise EndpointError(
                f"{error} {call.scored} of {wanted} documents had been scored."
            ) from error

    async def _score_part(
        self, call: _Call, places: list[int], slots: asyncio.Semaphore, deadline: float
    ) -> None:
        """In two halves when the endpoint calls it too large: its limit may be less than ours."""
        try:
            async with slots:
                call.keep(places, await self._ask(call, places, deadline))
        except TooLarge:
            if len(places) == 1:
                raise
            middle = len(places) // 2
            await self._score_part(call, places[:middle], slots, deadline)
            await self._score_part(call, places[middle:], slots, deadline)

    async def _ask(self, call: _Call, places: list[int], deadline: float) -> Answer:
        documents = [call.documents[place] for place in places]
        body = request_body(
            self._dialect, self._model, call.query, documents, self._raw_scores, self._extra
        )
        return read_answer(self._dialect, await self._client.post(body, deadline), len(places))


class _Call:
    """One request on its way: what is known of it so far."""

    def __init__(self, query: str, documents: Sequence[str], blank: float) -> None:
        self.query = query
        self.documents = documents
        self.scores: Floats = np.full(len(documents), blank, dtype=np.float64)
        self.scored = 0
        self.tokens = 0

    def keep(self, places: list[int], answer: Answer) -> None:
        self.scores[places] = answer.scores
        self.scored += len(places)
        self.tokens += answer.tokens


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    """The first failure of a group; the others follow from it or are like it."""
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, ExceptionGroup) else failure
