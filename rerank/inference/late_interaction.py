"""Late interaction (ColBERT): query and document are read apart, one vector per token, and each
query token looks for its best match among the document's (MaxSim, Khattab & Zaharia 2020)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules.dense import Dense

from rerank.errors import WrongModel
from rerank.inference.batching import refuse_what_is_no_number, score_now
from rerank.inference.devices import TokenBudget, describe, is_memory_error
from rerank.inference.fingerprint import revision
from rerank.inference.models import read_json, refuse_missing_files
from rerank.inference.padding import padded
from rerank.inference.prompts import with_instruction
from rerank.inference.rounded_rows import round_rows
from rerank.inference.text_frame import TextFrame
from rerank.inference.texts import refuse_what_is_no_text
from rerank.inference.weights import (
    named_load_errors,
    refuse_broken_weights,
    refuse_random_weights,
)
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row

Side = Literal["query", "document"]
# The names under which checkpoints keep what stands before a document.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
# Longer documents are cut even where a model would take them.
MAX_TOKENS = 8192
# Short, for a checkpoint may cut queries to a few tokens.
_PROBES = ("", "2+2?", "Grüße,  你")


def is_late_interaction(directory: Path) -> bool:
    """Whether the files are those of a trained late-interaction model: saved by PyLate, by
    sentence-transformers, or by Stanford's ColBERT. Raises ModelNotFound for broken files."""
    saved = directory / "config_sentence_transformers.json"
    if saved.is_file() and (directory / "modules.json").is_file():
        return read_json(saved).get("model_type") in {"ColBERT", "MultiVectorEncoder"}
    config = directory / "config.json"
    return config.is_file() and "HF_ColBERT" in (read_json(config).get("architectures") or [])


@dataclass(frozen=True)
class Expansion:
    """Mask tokens that fill a query up to `length`; `attend`: whether the encoder sees them."""

    token: int
    length: int
    attend: bool


@dataclass
class _Query:
    """The query's own ids, how many mask tokens follow, and its vectors (tokens, dimension) once
    they are computed."""

    ids: list[int]
    masks: int
    vectors: torch.Tensor | None = None


class LateInteractionReranker:
    """A late-interaction checkpoint behind the `Reranker` protocol.

    The logit is MaxSim as the checkpoint defines it, the sum over the query's tokens of the best
    cosine. No such model publishes a map to [0, 1]: `relevance` is the mean of these cosines
    clipped to [0, 1], which orders documents and is no probability. A query longer than the
    checkpoint's usual length is read whole and not expanded; an instruction stands below it.
    Raises ModelNotFound or WrongModel when the files cannot serve.
    """

    def __init__(
        self, name: str, directory: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device = device
        self._budget = TokenBudget(device)
        self._model = _load(name, directory, device, dtype)
        round_rows(self._model)
        self._by_mean = self._model.similarity_fn_name == "meanmaxsim"
        transformer: Any = self._model[0]
        self._pad = int(self._model.tokenizer.pad_token_id or 0)
        most = min(int(self._model.max_seq_length or 512), MAX_TOKENS)
        self._expansion = _expansion(transformer)
        prompts = self._model.prompts
        self._query_frame = TextFrame(name, self._model.tokenizer, prompts.get("query") or "", most)
        own = next((prompts[key] for key in _DOCUMENT_PROMPTS if prompts.get(key)), "")
        self._document_frame = TextFrame(
            name, self._model.tokenizer, own, min(transformer.document_length or most, most)
        )
        self._compare(name, prompts.get("query") or "", own)
        self.card = ModelCard(
            name=name,
            description=f"The late-interaction model {name}: each query word finds its best match.",
            device=describe(device),
            dtype=str(dtype).removeprefix("torch."),
            follows_instructions=False,
            revision=revision(directory, dtype),
        )

    @property
    def budget(self) -> int:
        """Tokens of one batch."""
        return self._budget.tokens

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when the query is longer than the model reads or a text is no Unicode,
        DeviceError."""
        return score_now(self, request)

    def prepare(self, request: RerankRequest) -> Prepared:
        """Each row holds a document's ids; `shared` the query. Raises BadInput."""
        started = time.perf_counter()
        refuse_what_is_no_text(request)
        prompt = with_instruction(request.query, request.instruction)
        ids = self._query_frame.whole(prompt)
        masks = max(0, self._expansion.length - len(ids)) if self._expansion else 0
        found = self._document_frame.cut(request.documents)
        return Prepared(
            request,
            [row for row, _ in found],
            [len(row) for row, _ in found],
            prompt,
            truncated=sum(cut for _, cut in found),
            tokenize_ms=(time.perf_counter() - started) * 1000,
            shared=_Query(ids, masks),
        )

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """MaxSim of each row, shape (rows,)."""
        ids = [prepared.rows[place] for prepared, place in rows]
        with self._budget.spending(len(ids) * max(map(len, ids))):
            return self._forward(ids, [prepared.shared for prepared, _ in rows])

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        """Raises BadInput for values that are no numbers."""
        refuse_what_is_no_number(raw)
        query: _Query = prepared.shared
        query.vectors = None
        asked = len(query.ids) + query.masks
        mean = raw if self._by_mean else raw / np.float32(asked)
        return RerankScores(
            logits=raw,
            relevance=np.clip(mean, 0.0, 1.0),
            scale="cosine",
            truncated=prepared.truncated,
            tokens=sum(prepared.lengths) + asked,
            tokenize_ms=prepared.tokenize_ms,
        )

    def is_memory_error(self, error: BaseException) -> bool:
        """Whether a smaller batch might have helped."""
        return is_memory_error(error)

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]], queries: list[_Query]) -> FloatArray:
        """Shape (rows,)."""
        ids, mask = padded(rows, self._pad)
        vectors, scored = self._vectors("document", {"input_ids": ids, "attention_mask": mask})
        scores = torch.zeros(len(rows), device=vectors.device)
        places: dict[int, list[int]] = {}
        for place, query in enumerate(queries):
            places.setdefault(id(query), []).append(place)
        for own in places.values():
            cosines = self._query_vectors(queries[own[0]]) @ vectors[own].transpose(1, 2)
            best = cosines.masked_fill(~scored[own][:, None, :], -torch.inf).amax(dim=-1)
            # A document of which nothing counts matches nothing.
            best = best.masked_fill(best == -torch.inf, 0.0)
            scores[own] = best.mean(dim=-1) if self._by_mean else best.sum(dim=-1)
        return np.asarray(scores.cpu().numpy(), dtype=np.float32)

    def _query_vectors(self, query: _Query) -> torch.Tensor:
        """Shape (tokens, dimension), read at the first batch that holds a row of the request."""
        if query.vectors is None:
            width = len(query.ids) + query.masks
            filled = self._expansion.token if self._expansion else self._pad
            ids = torch.tensor([[*query.ids, *[filled] * query.masks]])
            expansion = torch.arange(width)[None] >= len(query.ids)
            attend = self._expansion is not None and self._expansion.attend
            mask = torch.ones_like(ids) if attend else (~expansion).long()
            features = {"input_ids": ids, "attention_mask": mask}
            if query.masks:
                features["query_expansion_positions"] = expansion
            vectors, scored = self._vectors("query", features)
            query.vectors = vectors[0][scored[0]]
        return query.vectors

    def _vectors(
        self, side: Side, features: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors (texts, tokens, dimension) and which of them count (texts, tokens)."""
        moved = {key: values.to(self._device) for key, values in features.items()}
        read = self._model(moved, task=side)
        return read["token_embeddings"].float(), read["attention_mask"].bool()

    def _compare(self, name: str, query: str, document: str) -> None:
        """Raises WrongModel where sentence-transformers reads other tokens in the same texts."""
        sides: list[tuple[Side, str, TextFrame]] = [
            ("query", query, self._query_frame),
            ("document", document, self._document_frame),
        ]
        for side, prompt, frame in sides:
            for text in _PROBES:
                read = self._model.preprocess([text], prompt=prompt, task=side)
                ours = frame.cut([text])[0][0]
                if read["input_ids"][0, : len(ours)].tolist() != ours:
                    raise WrongModel(
                        f"The tokenizer of {name!r} does not keep the {side}'s prefix apart. Save "
                        "the model with a current version of sentence-transformers."
                    )


def _load(name: str, directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    refuse_missing_files(name, directory)
    with named_load_errors(name):
        model = MultiVectorEncoder(
            str(directory),
            device=str(device),
            model_kwargs={"dtype": dtype},
            local_files_only=True,
        )
    if not any(isinstance(each, Dense) for each in model) or model.tokenizer is None:
        raise WrongModel(
            f"The model {name!r} has no trained projection of text tokens. Choose a "
            "late-interaction model of texts, for example one saved by PyLate."
        )
    refuse_random_weights(name, model.transformers_model, directory)
    refuse_broken_weights(name, model.named_parameters())
    return model.eval()


def _expansion(transformer: Any) -> Expansion | None:
    settings = transformer.query_expansion
    if settings is None:
        return None
    tokenizer = transformer.tokenizer
    if settings["token"] is not None:
        token = tokenizer.convert_tokens_to_ids(settings["token"])
    else:
        token = tokenizer.mask_token_id
        token = tokenizer.eos_token_id if token is None else token
    if token is None:
        return None
    return Expansion(int(token), int(settings["length"]), bool(settings["attend"]))
