"""Any sentence-transformers CrossEncoder with one output, by name or directory: classifiers of the
BERT type, and generative models that answer in one word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from rerank.errors import WrongModel
from rerank.inference.batching import refuse_what_is_no_number, score_now
from rerank.inference.devices import TokenBudget, describe, is_memory_error
from rerank.inference.fingerprint import revision
from rerank.inference.models import read_json, refuse_missing_files
from rerank.inference.packed_bert import PACKED_BUDGET, packed_scorer
from rerank.inference.padding import padded
from rerank.inference.pair_frame import Framed, ModelRow, PairFrame
from rerank.inference.prompts import with_instruction
from rerank.inference.rounded_rows import round_rows
from rerank.inference.template_frame import TemplateFrame
from rerank.inference.texts import refuse_what_is_no_text
from rerank.inference.weights import (
    named_load_errors,
    refuse_broken_weights,
    refuse_random_weights,
)
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row

# Longer inputs are cut even where a model would take them.
MAX_TOKENS = 8192


class CrossEncoderReranker:
    """A cross-encoder behind the `Reranker` protocol.

    `relevance` is the model's own activation where that gives values in [0, 1], else the sigmoid of
    the logit. An instruction takes the place that the model's chat template has for it; without
    one it stands below the query. Raises ModelNotFound or WrongModel when it cannot serve.
    """

    def __init__(
        self, name: str, directory: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device = device
        self._budget = TokenBudget(device)
        self._model = _load(name, directory, device, dtype)
        self._pad = int(self._model.tokenizer.pad_token_id or 0)
        self._is_generative = _is_generative(self._model)
        self._standing = _standing_prompt(self._model)
        max_tokens = _longest_input(self._model)
        self._frame: PairFrame | TemplateFrame
        if "message" in self._model[0].modality_config:
            self._frame = TemplateFrame(name, self._model[0], max_tokens, self._standing)
        else:
            self._frame = PairFrame(name, self._model.tokenizer, max_tokens)
            self._frame.compare(self._model[0])
        # Rows -> logits, shape (rows,).
        self._forward: Callable[[Sequence[ModelRow]], FloatArray] = self._plain_forward
        packed = packed_scorer(self._model.model) if len(self._model) == 1 else None
        if packed is None:
            round_rows(self._model)
        else:
            self._budget = TokenBudget(device, PACKED_BUDGET)
            self._forward = lambda rows: packed([r.ids for r in rows], [r.types for r in rows])
        self._relevance, self._scale = _relevance_of(self._model.activation_fn)
        self.card = ModelCard(
            name=name,
            description=f"The cross-encoder {name}.",
            device=describe(device),
            dtype=str(dtype).removeprefix("torch."),
            follows_instructions=self._has_place_for_instruction or None,
            revision=revision(directory, dtype, "packed" if packed else "torch"),
        )

    @property
    def budget(self) -> int:
        """Tokens of one batch."""
        return self._budget.tokens

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when query and instruction leave no room for a document or a text is no
        Unicode, DeviceError."""
        return score_now(self, request)

    def prepare(self, request: RerankRequest) -> Prepared:
        """Each row is a `ModelRow`. Raises BadInput."""
        started = time.perf_counter()
        refuse_what_is_no_text(request)
        framed = self._framed(request)
        return Prepared(
            request,
            framed.rows,
            [len(row.ids) for row in framed.rows],
            framed.prompt,
            truncated=framed.truncated,
            tokenize_ms=(time.perf_counter() - started) * 1000,
        )

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """Logits, shape (rows,)."""
        inputs = [prepared.rows[place] for prepared, place in rows]
        with self._budget.spending(len(inputs) * max(len(row.ids) for row in inputs)):
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

    @property
    def _has_place_for_instruction(self) -> bool:
        return isinstance(self._frame, TemplateFrame) and self._frame.has_place_for_instruction

    def _framed(self, request: RerankRequest) -> Framed:
        if isinstance(self._frame, TemplateFrame):
            return self._frame.rows(request.query, request.instruction, request.documents)
        query = with_instruction(request.query, request.instruction)
        return self._frame.rows(self._standing + query, request.documents)

    @torch.inference_mode()
    def _plain_forward(self, rows: Sequence[ModelRow]) -> FloatArray:
        """By the model's own modules, shape (rows,). Generative models read their answer at the
        last place, so their rows are filled up on the left."""
        ids, mask = padded([row.ids for row in rows], self._pad, left=self._is_generative)
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if rows[0].types:
            features["token_type_ids"] = padded([row.types for row in rows], 0)[0]
        if self._is_generative:
            features["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        features = {key: values.to(self._device) for key, values in features.items()}
        if self._is_generative:
            features["logits_to_keep"] = 1
        if isinstance(self._frame, TemplateFrame):
            features["modality"] = "message"
        scores = self._model(features)["scores"]
        return np.asarray(scores.float().reshape(len(rows)).cpu().numpy(), dtype=np.float32)


def _load(name: str, directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    _refuse_other_kinds(name, directory)
    refuse_missing_files(name, directory)
    with named_load_errors(name):
        model = CrossEncoder(
            str(directory),
            device=str(device),
            model_kwargs={"dtype": dtype},
            local_files_only=True,
        )
    if model.num_labels != 1:
        raise WrongModel(
            f"The model {name!r} gives {model.num_labels} numbers for a pair; a reranker gives one."
        )
    if model.tokenizer is None or model.model is None:
        raise WrongModel(f"The model {name!r} reads no texts. Choose a reranker of texts.")
    refuse_random_weights(name, model.model, directory)
    refuse_broken_weights(name, model.named_parameters())
    _refuse_strange_tokens(name, model)
    return model.eval()


def _refuse_other_kinds(name: str, directory: Path) -> None:
    """Before loading: sentence-transformers makes a cross-encoder of anything, with a random head
    or words nobody trained."""
    modules = directory / "modules.json"
    kinds = [str(m.get("type", "")) for m in read_json(modules)] if modules.is_file() else []
    if any(kind.endswith(".Pooling") for kind in kinds):
        raise WrongModel(
            f"The model {name!r} embeds single texts and cannot score pairs: it has no trained "
            "scoring head. Choose a reranker, or use it as the embedder."
        )
    config = directory / "config.json"
    facts = read_json(config) if config.is_file() else {}
    architecture = str((facts.get("architectures") or [""])[0])
    if architecture.endswith("ForCausalLM") and not any(k.endswith(".LogitScore") for k in kinds):
        raise WrongModel(
            f"The model {name!r} is a language model that was not trained to score; its numbers "
            "would mean nothing. Choose a reranker, for example zeroentropy/zerank-2-reranker."
        )


def _refuse_strange_tokens(name: str, model: Any) -> None:
    """Raises WrongModel where the answers' tokens are none of the vocabulary."""
    for module in model:
        tokens = [getattr(module, key, None) for key in ("true_token_id", "false_token_id")]
        strange = [t for t in tokens if t is not None and not 0 <= t < model.config.vocab_size]
        if strange:
            raise WrongModel(
                f"The model {name!r} scores with token {strange[0]}, but knows only "
                f"{model.config.vocab_size} tokens. Its files do not belong together."
            )


def _longest_input(model: Any) -> int:
    """In tokens: what the files allow, and no more than there are positions."""
    longest = min(int(model.max_seq_length or 512), MAX_TOKENS)
    embeddings = getattr(model.model.base_model, "embeddings", None)
    padding, positions = (
        getattr(embeddings, key, None) for key in ("padding_idx", "position_embeddings")
    )
    if padding is not None and positions is not None:
        # RoBERTa counts positions from behind its pad token.
        longest = min(longest, int(positions.num_embeddings) - int(padding) - 1)
    return longest


def _is_generative(model: Any) -> bool:
    return bool(model[0].transformer_task == "text-generation")


def _standing_prompt(model: Any) -> str:
    """What the model's files put before every query; "" for nothing."""
    name = model.default_prompt_name
    return str(model.prompts.get(name) or "") if name else ""


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
