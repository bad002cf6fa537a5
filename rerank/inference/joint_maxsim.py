"""The built-in reranker before any training: late interaction over jointly encoded tokens.

Query and document go through the built-in embedder together, so that each token sees the other
side. Each query token then looks for its best match among the document's tokens, and the mean of
these cosines (MaxSim, Khattab & Zaharia 2020) nudges the first stage's fused score. Alone such
an untrained score is worse than the fused order (docs/experiments.md), hence the small weight.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from rerank.errors import BadInput, WrongModel
from rerank.inference.batching import run_in_batches
from rerank.inference.devices import describe, is_memory_error, token_budget
from rerank.inference.models import UNTRAINED, ModelFacts
from rerank.inference.padding import padded
from rerank.inference.prompts import instruction_block
from rerank.types import FloatArray, ModelCard, RerankRequest, RerankScores

# Share of MaxSim in the score. Chosen on the judged sets: docs/experiments.md, 2026-11-21.
WEIGHT = 0.3
# Share of the instruction's tokens within MaxSim, however long the instruction is.
INSTRUCTION_SHARE = 0.25
# Encoder layers used of those the model has: half of them cost half and lose next to nothing.
LAYERS = 3
# The document keeps at least this many tokens, or the query is too long to be scored.
MIN_DOCUMENT_TOKENS = 32


class JointMaxSim:
    """A BERT-type encoder behind the `Reranker` protocol, blended with the request's priors.

    logit = (1 - weight) x prior + weight x MaxSim, both within [0, 1] up to float noise; without
    priors it is MaxSim alone. `relevance` is the logit clipped to [0, 1], on no calibrated scale.
    """

    def __init__(
        self,
        facts: ModelFacts,
        device: torch.device,
        dtype: torch.dtype,
        weight: float = WEIGHT,
        layers: int = LAYERS,
    ) -> None:
        self._device = device
        self._weight = weight
        # The fast attention of the CPU needs dropout 0; eval mode gives the same numbers anyway.
        self._model: Any = AutoModel.from_pretrained(
            facts.directory,
            dtype=dtype,
            attention_probs_dropout_prob=0.0,
            hidden_dropout_prob=0.0,
            add_pooling_layer=False,
        )
        if self._model.config.model_type != "bert":
            raise WrongModel(f"The model {facts.name!r} is not of the BERT type.")
        self._model.encoder.layer = self._model.encoder.layer[:layers]
        self._model.to(device).eval()
        self._max_tokens = int(self._model.config.max_position_embeddings)
        self._tokenizer: Any = Tokenizer.from_file(str(facts.tokenizer_file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # "[SEP]" in a document is text, not a separator.
        self._tokenizer.encode_special_tokens = True
        self._cls = int(self._tokenizer.token_to_id("[CLS]") or 0)
        self._sep = int(self._tokenizer.token_to_id("[SEP]") or 0)
        self.card = ModelCard(
            name=UNTRAINED,
            description=(
                "An untrained baseline: the first stage's score, nudged by how well the words of "
                f"query and passage match in context ({facts.name})."
            ),
            device=describe(device),
            dtype=str(dtype).removeprefix("torch."),
            follows_instructions=False,
        )

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when query and instruction leave no room for a document."""
        started = time.perf_counter()
        query, instruction, documents = self._token_ids(request)
        room = self._max_tokens - 3 - len(query) - len(instruction)
        if room < MIN_DOCUMENT_TOKENS:
            raise BadInput(
                f"The query and its instruction are {len(query) + len(instruction)} tokens long; "
                f"the reranker reads {self._max_tokens - 3 - MIN_DOCUMENT_TOKENS} at most."
            )
        truncated = sum(1 for document in documents if len(document) > room)
        head = [self._cls, *query, *instruction, self._sep]
        rows = [[*head, *document[:room], self._sep] for document in documents]
        tokenized = time.perf_counter()
        maxsim = self._maxsim(rows, len(query), len(instruction))
        logits = self._blend(maxsim, request.priors)
        return RerankScores(
            logits=logits,
            relevance=np.clip(logits, 0.0, 1.0),
            scale="untrained",
            truncated=truncated,
            tokens=sum(map(len, rows)),
            tokenize_ms=(tokenized - started) * 1000,
            inference_ms=(time.perf_counter() - tokenized) * 1000,
        )

    def _blend(self, maxsim: FloatArray, priors: Sequence[float] | None) -> FloatArray:
        if priors is None:
            return maxsim
        if len(priors) != len(maxsim):
            raise BadInput(f"{len(priors)} priors were given for {len(maxsim)} documents.")
        prior = np.asarray(priors, dtype=np.float32)
        blended: FloatArray = (1.0 - self._weight) * prior + self._weight * maxsim
        return blended.astype(np.float32)

    def _token_ids(self, request: RerankRequest) -> tuple[list[int], list[int], list[list[int]]]:
        texts = [request.query, instruction_block(request.instruction), *request.documents]
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        query, instruction, *documents = [list(one.ids) for one in encoded]
        return query, instruction, documents

    def _maxsim(self, rows: list[list[int]], query: int, instruction: int) -> FloatArray:
        """Shape (n,), for rows [CLS] query instruction [SEP] document [SEP]."""
        if query + instruction == 0:
            return np.zeros(len(rows), dtype=np.float32)
        shares = np.full(query + instruction, 1.0 / (query + instruction), dtype=np.float32)
        if query and instruction:
            shares[:query] = (1.0 - INSTRUCTION_SHARE) / query
            shares[query:] = INSTRUCTION_SHARE / instruction
        weights = torch.from_numpy(shares).to(self._device)
        scores = run_in_batches(
            [len(row) for row in rows],
            lambda places: self._forward([rows[place] for place in places], weights),
            1,
            token_budget(self._device),
            is_memory_error,
        )
        return scores[:, 0]

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]], weights: torch.Tensor) -> FloatArray:
        """Shape (rows, 1)."""
        ids, mask = (tensor.to(self._device) for tensor in padded(rows, 0))
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        hidden = torch.nn.functional.normalize(hidden, dim=-1)
        asked = len(weights)
        first = asked + 2  # after [CLS] and [SEP]
        lengths = mask.sum(dim=1)
        places = torch.arange(first, ids.shape[1], device=self._device)
        is_document = places[None, :] < (lengths - 1)[:, None]
        if not is_document.any():
            return np.zeros((len(rows), 1), dtype=np.float32)
        cosines = hidden[:, 1 : asked + 1] @ hidden[:, first:].transpose(1, 2)
        best = cosines.masked_fill(~is_document[:, None, :], -1.0).amax(dim=-1)
        score = (best.clamp(min=0.0) @ weights)[:, None]
        return np.asarray(score.cpu().numpy(), dtype=np.float32)
