"""The zerank family: a Qwen3 decoder whose logit of one word, read at the prompt's end, is the
score."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import Qwen3Config, Qwen3Model

from rerank.errors import ModelNotFound, WrongModel
from rerank.inference import fp8
from rerank.inference.batching import refuse_what_is_no_number, score_now
from rerank.inference.cross_encoder import sigmoid
from rerank.inference.devices import TokenBudget, describe, is_memory_error
from rerank.inference.fingerprint import revision
from rerank.inference.golden import check_golden, golden_pairs
from rerank.inference.packed_attention import KeysValues, Packing, choose_varlen, send
from rerank.inference.prompts import with_instruction
from rerank.inference.qwen_decoder import QwenDecoder
from rerank.inference.qwen_frame import QwenFrame
from rerank.inference.texts import refuse_what_is_no_text
from rerank.inference.weights import refuse_broken_weights
from rerank.inference.zerank_files import TRUE_WORD, ZerankFiles
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row

# relevance = sigmoid(logit / TEMPERATURE), as published.
TEMPERATURE = 5.0
# A shorter prefix costs less than handing its keys to every document.
SHORTEST_SHARED_PREFIX = 12


@dataclass
class _Prefix:
    """What all prompts of a request begin with, and its keys and values once they are read."""

    ids: list[int]
    kept: dict[int, KeysValues] | None = None


class ZerankReranker:
    """A zerank checkpoint behind the `Reranker` protocol; `relevance` is the published one.

    `dtype`: torch.float8_e4m3fn multiplies matrices in 8 bits and does the rest in bfloat16.
    `share_prefix`: read frame, query and instruction once per request instead of once per document;
    the scores are the same. `max_tokens` of one prompt, `batch_tokens` of one batch; None for what
    the model allows and the device likes. `compiled`: see QwenDecoder. Raises ModelNotFound or
    WrongModel when the files cannot serve.
    """

    def __init__(
        self,
        files: ZerankFiles,
        device: torch.device,
        dtype: torch.dtype,
        share_prefix: bool = True,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        compiled: bool = False,
    ) -> None:
        self._name = files.name
        self._device = device
        self._share = share_prefix
        self._budget = TokenBudget(device, batch_tokens)
        self._frame = QwenFrame(files.tokenizer_file, max_tokens or files.max_tokens)
        config = _config(files)
        use_fp8 = dtype == fp8.DTYPE
        computes = fp8.COMPUTE if use_fp8 else dtype
        model = _body(files, config, computes, device)
        self._head = _head(files, config, model, self._frame).to(device)
        weights = [*model.named_parameters(), ("the scoring head", self._head)]
        refuse_broken_weights(files.name, weights)
        self._decoder = QwenDecoder(model, use_fp8, compiled)
        self._varlen = choose_varlen(
            device,
            computes,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        number_format = "fp8" if use_fp8 else str(dtype).removeprefix("torch.")
        self.card = ModelCard(
            name=files.name,
            description=f"The zerank reranker {files.name}, with its published relevance scale.",
            device=describe(device),
            dtype=number_format,
            follows_instructions=_follows_instructions(files.name),
            revision=revision(
                files.directory, number_format, "torch-compiled" if compiled else "torch"
            ),
            extra={
                "layout": files.layout,
                "longest prompt": str(self._frame.max_tokens),
            },
        )

    def check_golden(self) -> int:
        """How many published scores the weights gave again; 0 when none are known for the name.

        Raises WrongModel when one is off."""
        return check_golden(self, self._name)

    @property
    def budget(self) -> int:
        """Tokens of one batch."""
        return self._budget.tokens

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when query and instruction leave no room or a text is no Unicode,
        DeviceError when a single document is more than the memory holds."""
        return score_now(self, request)

    def prepare(self, request: RerankRequest) -> Prepared:
        """Each row holds the ids the model reads of that document: without the prefix where it is
        shared. Raises BadInput."""
        started = time.perf_counter()
        refuse_what_is_no_text(request)
        prompt = with_instruction(request.query.strip(), request.instruction)
        prefix = self._frame.prefix(prompt)
        documents = self._frame.documents(prefix, request.documents)
        rows = [document.ids for document in documents]
        is_shared = self._share and len(rows) > 1 and len(prefix) >= SHORTEST_SHARED_PREFIX
        if not is_shared:
            rows = [prefix + row for row in rows]
        return Prepared(
            request,
            rows,
            [len(row) for row in rows],
            prompt,
            truncated=sum(document.truncated for document in documents),
            tokenize_ms=(time.perf_counter() - started) * 1000,
            shared=_Prefix(prefix) if is_shared else None,
        )

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """Logits, shape (rows,). Documents without a shared prefix go together, whatever request
        they belong to; those with one, a request at a time."""
        logits = np.zeros(len(rows), dtype=np.float32)
        groups: dict[Prepared | None, list[int]] = {}
        for place, (prepared, _) in enumerate(rows):
            groups.setdefault(prepared if prepared.shared else None, []).append(place)
        for group, places in groups.items():
            ids = [rows[place][0].rows[rows[place][1]] for place in places]
            with self._budget.spending(sum(map(len, ids))):
                logits[places] = self._forward(ids, self._keys_values(group))
        return logits

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        """Raises BadInput for values that are no numbers."""
        refuse_what_is_no_number(raw)
        read = sum(prepared.lengths)
        if prepared.shared:
            read += len(prepared.shared.ids)
            prepared.shared.kept = None
        return RerankScores(
            logits=raw,
            relevance=sigmoid(raw / np.float32(TEMPERATURE)),
            scale="published",
            truncated=prepared.truncated,
            tokens=read,
            tokenize_ms=prepared.tokenize_ms,
        )

    def is_memory_error(self, error: BaseException) -> bool:
        """Whether a smaller batch might have helped."""
        return is_memory_error(error)

    def _keys_values(self, prepared: Prepared | None) -> dict[int, KeysValues]:
        """Of the request's prefix, read at its first batch; none where it is not shared."""
        if prepared is None:
            return {}
        prefix: _Prefix = prepared.shared
        if prefix.kept is None:
            prefix.kept = self._read_prefix(prefix.ids)
        return prefix.kept

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]], shared: dict[int, KeysValues]) -> FloatArray:
        """Shape (rows,)."""
        packing = Packing(
            [len(row) for row in rows], self._device, prefix=shared, varlen=self._varlen
        )
        hidden = self._decoder.read(self._ids(rows), packing)
        assert hidden is not None
        logits = hidden.float() @ self._head
        return np.asarray(logits.cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def _read_prefix(self, prefix: list[int]) -> dict[int, KeysValues]:
        packing = Packing([len(prefix)], self._device, keep=True, varlen=self._varlen)
        self._decoder.read(self._ids([prefix]), packing)
        return packing.kept

    def _ids(self, rows: list[list[int]]) -> torch.Tensor:
        """End to end, shape (tokens,)."""
        return send(np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]), self._device)


def _config(files: ZerankFiles) -> Any:
    """The Qwen3 settings; those of the remote-code layout name classes of their own."""
    own = {"model_type", "architectures", "auto_map", "transformers_version"}
    try:
        config = Qwen3Config.from_dict({k: v for k, v in files.config.items() if k not in own})
    except (TypeError, ValueError) as error:
        raise WrongModel(
            f"The settings of the model {files.name!r} are not those of a Qwen3 model: {error}"
        ) from error
    if getattr(config, "use_sliding_window", False):
        raise WrongModel(f"The model {files.name!r} attends in a sliding window; zerank does not.")
    return config


def _body(files: ZerankFiles, config: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The decoder without any head."""
    if not any(files.directory.glob("*.safetensors")):
        raise ModelNotFound(
            f"No weights in safetensors format lie in {files.directory}. Download the model again, "
            "all of it."
        )
    loader: Any = Qwen3Model
    try:
        model, report = loader.from_pretrained(
            files.directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:
        raise ModelNotFound(
            f"The weights of the model {files.name!r} cannot be read: {error} Download the model "
            "again, all of it."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise WrongModel(
            f"The weights of the model {files.name!r} do not fit its settings: {error}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelNotFound(
            f"The weights of the model {files.name!r} are incomplete: {len(missing)} are missing, "
            f"the first is {missing[0]}. Download the model again, all of it."
        )
    return model.to(device).eval()


def _head(files: ZerankFiles, config: Any, model: Any, frame: QwenFrame) -> torch.Tensor:
    """The one row that gives the logit, float32, shape (hidden size,)."""
    if files.layout == "classifier":
        return _stored_row(files, "score.weight", 0)
    true = frame.token_id(TRUE_WORD) if files.true_token is None else files.true_token
    tokens = [true] if files.false_token is None else [true, files.false_token]
    if not all(0 <= token < config.vocab_size for token in tokens):
        raise WrongModel(
            f"The model {files.name!r} scores with token {max(tokens)}, but knows only "
            f"{config.vocab_size} tokens. Its files do not belong together."
        )
    if config.tie_word_embeddings:
        rows = [model.embed_tokens.weight[token].detach().float().cpu() for token in tokens]
    else:
        rows = [_stored_row(files, "lm_head.weight", token) for token in tokens]
    row: torch.Tensor = rows[0] if len(rows) == 1 else rows[0] - rows[1]
    return row


def _stored_row(files: ZerankFiles, weight: str, row: int) -> torch.Tensor:
    """One row of a weight, without reading the others."""
    with ExitStack() as stack:
        for path in sorted(files.directory.glob("*.safetensors")):
            file = stack.enter_context(safe_open(str(path), framework="pt"))
            if weight in file.keys():  # noqa: SIM118 - the file is no mapping
                found: torch.Tensor = file.get_slice(weight)[row : row + 1][0]
                return found.float()
    raise WrongModel(
        f"The model {files.name!r} has no trained scoring head: {weight} is in none of its files "
        "and would be random. Choose a checkpoint that holds it."
    )


def _follows_instructions(name: str) -> bool | None:
    """zerank-2 was trained for it; of others nothing is known."""
    return True if golden_pairs(name) and "zerank-2" in name else None
