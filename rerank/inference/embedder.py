"""Texts -> unit vectors by any sentence-transformers model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.transformer import Transformer

from rerank.errors import WrongModel
from rerank.inference.batching import run_in_batches
from rerank.inference.devices import describe, is_memory_error, token_budget
from rerank.inference.models import ModelFacts
from rerank.inference.padding import padded
from rerank.inference.rounded_rows import round_rows
from rerank.inference.texts import FIRST_LOOK, beginning_of
from rerank.types import FloatArray, ModelCard

# How long a batch of documents lets queries pass before it goes on regardless.
PATIENCE_SECONDS = 0.5


class QueriesFirst:
    """Lets bulk work stand back while queries are at work.

    Queries never wait: they run beside a batch in progress, and the next batch waits for them.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queries = 0

    @contextmanager
    def query(self) -> Iterator[None]:
        with self._condition:
            self._queries += 1
        try:
            yield
        finally:
            with self._condition:
                self._queries -= 1
                self._condition.notify_all()

    def stand_back(self) -> None:
        """Returns when no query is at work, or after `PATIENCE_SECONDS`."""
        with self._condition:
            self._condition.wait_for(lambda: self._queries == 0, PATIENCE_SECONDS)


class SentenceEmbedder:
    """A sentence-transformers model behind the `Embedder` protocol.

    Texts are cut to the model's own limit. Prefixes ("query: ") are the caller's business. Safe to
    call from several threads; batches of documents stand back for queries.
    """

    def __init__(self, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> None:
        self._facts = facts
        self._device = device
        self._max_tokens = facts.max_tokens
        self._model = SentenceTransformer(
            str(facts.directory), device=str(device), model_kwargs={"dtype": dtype}
        ).eval()
        round_rows(self._model)
        if not isinstance(self._model[0], Transformer):
            raise WrongModel(f"The model {facts.name!r} does not embed texts by a transformer.")
        self._tokenizer: Any = self._model.tokenizer
        # The tokenizer's padding state is shared; two threads must not change it under each other.
        self._tokenizer_lock = threading.Lock()
        self._queries_first = QueriesFirst()
        self._card = ModelCard(
            name=facts.name,
            description=f"Embeds texts as vectors of length {facts.dimension}.",
            device=describe(device),
            dtype=str(dtype).removeprefix("torch."),
        )

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def name(self) -> str:
        return self._facts.name

    @property
    def dimension(self) -> int:
        return self._facts.dimension

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors, shape (n, dimension), float32."""
        with self._queries_first.query():
            return self._embed(texts, polite=False)

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors, shape (n, dimension), float32, in the order of the texts."""
        return self._embed(texts, polite=True)

    def _embed(self, texts: Sequence[str], polite: bool) -> FloatArray:
        ids = self._token_ids(texts)

        def compute(places: list[int]) -> FloatArray:
            if polite:
                self._queries_first.stand_back()
            return self._forward([ids[place] for place in places])

        vectors = run_in_batches(
            [len(row) for row in ids],
            compute,
            self.dimension,
            token_budget(self._device),
            is_memory_error,
        )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        with self._tokenizer_lock:
            encoded = self._tokenizer(
                [self._beginning(text) for text in texts],
                truncation=True,
                max_length=self._max_tokens,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        return [list(row) for row in encoded["input_ids"]]

    def _beginning(self, text: str) -> str:
        """As much of a long text as can matter."""
        if len(text) <= self._max_tokens * FIRST_LOOK:
            return text
        return beginning_of(text, self._max_tokens, self._tokenizer.tokenize)[0]

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]]) -> FloatArray:
        input_ids, mask = padded(rows, self._tokenizer.pad_token_id or 0)
        features = {
            "input_ids": input_ids.to(self._device),
            "attention_mask": mask.to(self._device),
        }
        vectors = self._model(features)["sentence_embedding"]
        return np.asarray(vectors.float().cpu().numpy(), dtype=np.float32)
