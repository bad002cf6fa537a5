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
from rerank.inference.batching import refuse_what_is_no_number, score_now
from rerank.inference.devices import TokenBudget, describe, is_memory_error
from rerank.inference.fingerprint import revision
from rerank.inference.models import UNTRAINED, ModelFacts
from rerank.inference.packed_bert import PACKED_BUDGET, Encoder, EvenThreads, packed_encoder
from rerank.inference.padding import padded
from rerank.inference.prompts import instruction_block
from rerank.inference.rounded_rows import round_rows
from rerank.inference.texts import first_ids, refuse_what_is_no_text
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row

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
        self._budget = TokenBudget(device)
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
        self._encoder = packed_encoder(self._model)
        if self._encoder is None:
            round_rows(self._model)
        else:
            self._budget = TokenBudget(device, PACKED_BUDGET)
            self._threads = EvenThreads()
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
            revision=f"{revision(facts.directory, dtype)}-{layers}",
        )

    @property
    def budget(self) -> int:
        """Tokens of one batch."""
        return self._budget.tokens

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when query and instruction leave no room for a document, DeviceError."""
        return score_now(self, request)

    def prepare(self, request: RerankRequest) -> Prepared:
        """Rows [CLS] query instruction [SEP] document [SEP]; `shared` holds the weight of each
        token of query and instruction. Raises BadInput."""
        started = time.perf_counter()
        refuse_what_is_no_text(request)
        query, instruction = self._encode([request.query, instruction_block(request.instruction)])
        room = self._max_tokens - 3 - len(query) - len(instruction)
        if room < MIN_DOCUMENT_TOKENS:
            raise BadInput(
                f"The query and its instruction are {len(query) + len(instruction)} tokens long; "
                f"the reranker reads {self._max_tokens - 3 - MIN_DOCUMENT_TOKENS} at most."
            )
        if request.priors is not None and len(request.priors) != len(request.documents):
            raise BadInput(
                f"{len(request.priors)} priors were given for {len(request.documents)} documents."
            )
        head = [self._cls, *query, *instruction, self._sep]
        found = first_ids(self._encode, request.documents, room)
        rows = [[*head, *ids, self._sep] for ids, _ in found]
        return Prepared(
            request,
            rows,
            [len(row) for row in rows],
            # The two parts weigh differently, so where one ends belongs to the prompt.
            f"{request.query}\0{instruction_block(request.instruction)}",
            truncated=sum(cut for _, cut in found),
            tokenize_ms=(time.perf_counter() - started) * 1000,
            shared=_weights(len(query), len(instruction)),
        )

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """MaxSim of each row, shape (rows,)."""
        ids = [prepared.rows[place] for prepared, place in rows]
        with self._budget.spending(len(ids) * max(map(len, ids))):
            weights = [prepared.shared for prepared, _ in rows]
            if self._encoder is None:
                return self._forward(ids, weights)
            return self._packed_forward(self._encoder, ids, weights)

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        logits = self._blend(raw, prepared.request.priors)
        refuse_what_is_no_number(logits)
        return RerankScores(
            logits=logits,
            relevance=np.clip(logits, 0.0, 1.0),
            scale="untrained",
            truncated=prepared.truncated,
            tokens=sum(prepared.lengths),
            tokenize_ms=prepared.tokenize_ms,
        )

    def is_memory_error(self, error: BaseException) -> bool:
        """Whether a smaller batch might have helped."""
        return is_memory_error(error)

    def _blend(self, maxsim: FloatArray, priors: Sequence[float] | None) -> FloatArray:
        if priors is None:
            return maxsim
        prior = np.asarray(priors, dtype=np.float32)
        blended: FloatArray = (1.0 - self._weight) * prior + self._weight * maxsim
        return blended.astype(np.float32)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in encoded]

    def _packed_forward(
        self, encoder: Encoder, rows: list[list[int]], weights: list[FloatArray]
    ) -> FloatArray:
        """As `_forward`, without padding."""

        @torch.inference_mode()
        def compute(places: list[int]) -> FloatArray:
            hidden = encoder.hidden([rows[place] for place in places]).float()
            hidden = torch.nn.functional.normalize(hidden, dim=-1)
            parts = torch.split_with_sizes(hidden, [len(rows[place]) for place in places])
            scores = [
                _maxsim(part, weights[place]) for part, place in zip(parts, places, strict=True)
            ]
            return np.array(scores, dtype=np.float32)

        return self._threads([len(row) for row in rows], compute)

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]], weights: list[FloatArray]) -> FloatArray:
        """Shape (rows,); `weights` as `_weights` gives them, one array for each row."""
        ids, mask = (tensor.to(self._device) for tensor in padded(rows, 0))
        asked = torch.tensor([len(each) for each in weights], device=self._device)[:, None]
        most = int(asked.max())
        if most == 0:
            return np.zeros(len(rows), dtype=np.float32)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        hidden = torch.nn.functional.normalize(hidden, dim=-1)
        places = torch.arange(ids.shape[1], device=self._device)[None, :]
        # After [CLS], query and [SEP], and before the last [SEP].
        is_document = (places >= asked + 2) & (places < mask.sum(dim=1, keepdim=True) - 1)
        cosines = hidden[:, 1 : most + 1] @ hidden.transpose(1, 2)
        best = cosines.masked_fill(~is_document[:, None, :], -1.0).amax(dim=-1)
        shares = np.zeros((len(rows), most), dtype=np.float32)
        for row, each in zip(shares, weights, strict=True):
            row[: len(each)] = each
        score = (best.clamp(min=0.0) * torch.from_numpy(shares).to(self._device)).sum(dim=-1)
        return np.asarray(score.cpu().numpy(), dtype=np.float32)


def _maxsim(hidden: torch.Tensor, weights: FloatArray) -> float:
    """Of one row's unit vectors, shape (tokens, hidden)."""
    asked = len(weights)
    document = hidden[asked + 2 : -1]  # after [CLS], query and [SEP], and before the last [SEP]
    if not asked or not len(document):
        return 0.0
    best = (hidden[1 : asked + 1] @ document.T).amax(dim=-1).clamp(min=0.0)
    return float(best @ torch.from_numpy(weights))


def _weights(query: int, instruction: int) -> FloatArray:
    """The share of each token of query and instruction in the score; together 1."""
    asked = query + instruction
    shares = np.full(asked, 1.0 / max(asked, 1), dtype=np.float32)
    if query and instruction:
        shares[:query] = (1.0 - INSTRUCTION_SHARE) / query
        shares[query:] = INSTRUCTION_SHARE / instruction
    return shares
