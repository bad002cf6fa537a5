"""Any sentence-transformers CrossEncoder with one output, by name or directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from sentence_transformers import CrossEncoder

from rerank.errors import BadInput, ModelNotFound, WrongModel
from rerank.inference.batching import refuse_what_is_no_number, score_now
from rerank.inference.devices import TokenBudget, describe, is_memory_error
from rerank.inference.fingerprint import revision
from rerank.inference.prompts import with_instruction
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row

# The document keeps at least this many tokens, or the query is too long to be scored.
MIN_DOCUMENT_TOKENS = 32
# Longer inputs are cut even where a model would take them.
MAX_TOKENS = 8192


class CrossEncoderReranker:
    """A sequence-classification cross-encoder behind the `Reranker` protocol.

    `relevance` is the model's own activation where that gives values in [0, 1], else the sigmoid of
    the logit. Raises ModelNotFound or WrongModel when it cannot serve.
    """

    def __init__(
        self, name: str, directory: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device = device
        self._budget = TokenBudget(device)
        self._model = _load(name, directory, device, dtype)
        self._tokenizer: Any = self._model.tokenizer
        self._max_tokens = min(int(self._model.max_seq_length or 512), MAX_TOKENS)
        self._relevance, self._scale = _relevance_of(self._model.activation_fn)
        self.card = ModelCard(
            name=name,
            description=f"The cross-encoder {name}.",
            device=describe(device),
            dtype=str(dtype).removeprefix("torch."),
            revision=revision(directory, dtype),
        )

    @property
    def budget(self) -> int:
        """Tokens of one batch."""
        return self._budget.tokens

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when query and instruction leave no room for a document, DeviceError."""
        return score_now(self, request)

    def prepare(self, request: RerankRequest) -> Prepared:
        """Raises BadInput."""
        started = time.perf_counter()
        prompt = with_instruction(request.query, request.instruction)
        rows, truncated = self._rows(prompt, request.documents) if request.documents else ([], 0)
        return Prepared(
            request,
            rows,
            [len(row["input_ids"]) for row in rows],
            prompt,
            truncated=truncated,
            tokenize_ms=(time.perf_counter() - started) * 1000,
        )

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """Logits, shape (rows,)."""
        inputs = [prepared.rows[place] for prepared, place in rows]
        with self._budget.spending(len(inputs) * max(len(row["input_ids"]) for row in inputs)):
            return self._forward(inputs)

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        """Raises BadInput for values that are no numbers."""
        refuse_what_is_no_number(raw)
        return RerankScores(
            logits=raw,
            relevance=self._relevance(raw),
            scale=self._scale,
            truncated=prepared.truncated,
            tokens=sum(prepared.lengths),
            tokenize_ms=prepared.tokenize_ms,
        )

    def is_memory_error(self, error: BaseException) -> bool:
        """Whether a smaller batch might have helped."""
        return is_memory_error(error)

    def _rows(self, query: str, documents: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
        """Each pair's model inputs as lists, and how many documents were cut to fit."""
        alone = self._encode([query], [""])[0]
        if len(alone["input_ids"]) > self._max_tokens - MIN_DOCUMENT_TOKENS:
            raise BadInput(
                f"The query and its instruction are {len(alone['input_ids'])} tokens long; the "
                f"reranker reads {self._max_tokens - MIN_DOCUMENT_TOKENS} at most."
            )
        rows = self._encode([query] * len(documents), documents)
        long = [i for i, row in enumerate(rows) if len(row["input_ids"]) > self._max_tokens]
        if long:
            cut = self._encode(
                [query] * len(long),
                [documents[i] for i in long],
                truncation="only_second",
                max_length=self._max_tokens,
            )
            for place, row in zip(long, cut, strict=True):
                rows[place] = row
        return rows, len(long)

    def _encode(
        self, queries: Sequence[str], documents: Sequence[str], **options: Any
    ) -> list[dict[str, Any]]:
        # "[SEP]" in a document is text, not a separator.
        encoded = self._tokenizer(
            list(queries), list(documents), split_special_tokens=True, padding=False, **options
        )
        return [{key: encoded[key][i] for key in encoded} for i in range(len(queries))]

    @torch.inference_mode()
    def _forward(self, rows: list[dict[str, Any]]) -> FloatArray:
        """Shape (rows,)."""
        features = self._tokenizer.pad(rows, return_tensors="pt").to(self._device)
        scores = self._model(dict(features))["scores"]
        return np.asarray(scores.float().reshape(len(rows)).cpu().numpy(), dtype=np.float32)


def _load(name: str, directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        model = CrossEncoder(str(directory), device=str(device), model_kwargs={"dtype": dtype})
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFound(f"The model {name!r} cannot be loaded: {error}") from error
    classifier = model.model
    if classifier is None or not type(classifier).__name__.endswith("ForSequenceClassification"):
        raise WrongModel(f"The model {name!r} is not a sequence-classification cross-encoder.")
    if model.num_labels != 1:
        raise WrongModel(
            f"The model {name!r} gives {model.num_labels} numbers for a pair; a reranker gives one."
        )
    missing = _untrained_head(classifier, directory)
    if missing:
        raise WrongModel(
            f"The model {name!r} has no trained scoring head: {', '.join(missing)} would be random."
        )
    return model.eval()


def _untrained_head(classifier: Any, directory: Path) -> list[str]:
    """Names of the head's parameters that the weight files do not hold.

    transformers fills them with random numbers and only logs it; the scores would mean nothing.
    """
    stored: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            stored.update(file.keys())
    if not stored:
        raise ModelNotFound(f"No weights in safetensors format lie in {directory}.")
    body = f"{classifier.base_model_prefix}."
    names = [parameter for parameter, _ in classifier.named_parameters()]
    return [name for name in names if not name.startswith(body) and name not in stored]


def _relevance_of(
    activation: Any,
) -> tuple[Callable[[FloatArray], FloatArray], Literal["published", "sigmoid"]]:
    if isinstance(activation, torch.nn.Sigmoid | torch.nn.Identity) or activation is None:
        return sigmoid, "sigmoid"

    def own(logits: FloatArray) -> FloatArray:
        values = activation(torch.from_numpy(logits)).numpy()
        return np.asarray(np.clip(values, 0.0, 1.0), dtype=np.float32)

    return own, "published"


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow."""
    values = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return values.astype(np.float32)
