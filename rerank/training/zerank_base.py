"""Qwen3 decoders, trained in the zerank frame: the logit of "Yes" at the prompt's end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rerank.errors import BadInput, ModelNotFound, WrongModel
from rerank.inference.fingerprint import fingerprint
from rerank.inference.models import max_tokens as longest_input
from rerank.inference.models import read_json
from rerank.inference.padding import padded
from rerank.inference.prompts import with_instruction
from rerank.inference.qwen_frame import QwenFrame
from rerank.inference.texts import refuse_what_is_no_text
from rerank.inference.weights import named_load_errors
from rerank.inference.zerank import TEMPERATURE
from rerank.inference.zerank_files import MOST_TOKENS, TRUE_WORD, ZerankFiles, zerank_files
from rerank.types import RerankRequest

from .bases import TrainingRow
from .lora import LoraSettings, merged, save_adapter, with_adapter
from .parameters import groups
from .settings import Settings
from .two_documents import cut_both
from .weight_files import save_weights

# Renders (query, document) as the frame of qwen_frame.py.
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set turn = 'system' if message['role'] in ['query', 'system'] else 'user' -%}"
    "{{- '<|im_start|>' + turn + '\\n' + (message['content'] | trim) + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
# Fewer tokens of each document would not tell which is better.
_LEAST_OF_TWO = 8


def is_qwen3(name: str, directory: Path) -> bool:
    """Whether the directory holds a zerank model or a Qwen3 language model. Raises WrongModel for
    one that was converted to a classifier."""
    return _files(name, directory) is not None


class ZerankBase:
    """`Trainable` over a Qwen3 directory; the checkpoint is a zerank model in the layout of
    sentence-transformers modules, whatever layout the base has."""

    kind = "zerank"
    temperature = TEMPERATURE

    def __init__(
        self,
        name: str,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        max_tokens: int,
        lora: LoraSettings | None,
    ) -> None:
        files = _files(name, directory)
        assert files is not None
        self.name = name
        self.revision = fingerprint(files.directory)
        self.device = device
        self.lora = lora
        self._files = files
        self.max_tokens = min(max_tokens, files.max_tokens) if max_tokens else files.max_tokens
        self._frame = QwenFrame(files.tokenizer_file, self.max_tokens)
        self._true = files.true_token
        if self._true is None:
            self._true = self._frame.token_id(TRUE_WORD)
        self._plain = _load(files, dtype).to(device)
        self._plain.config.use_cache = False
        if not 0 <= self._true < self._plain.config.vocab_size:
            raise WrongModel(f"The files of the model {name!r} do not belong together.")
        self.module: torch.nn.Module = self._plain
        if lora is not None:
            self.module = with_adapter(self._plain, lora)

    def rows(
        self,
        query: str,
        instruction: str,
        documents: Sequence[str],
        priors: Sequence[float] | None = None,
    ) -> list[TrainingRow]:
        """Raises BadInput."""
        refuse_what_is_no_text(RerankRequest(query, documents, instruction))
        prefix = self._frame.prefix(with_instruction(query.strip(), instruction))
        found = self._frame.documents(prefix, documents)
        return [TrainingRow(prefix + document.ids) for document in found]

    def pair_row(self, query: str, instruction: str, a: str, b: str) -> TrainingRow:
        """The same frame; the user turn is "Document A:", a line break, a, an empty line, and so
        for B."""
        refuse_what_is_no_text(RerankRequest(query, [a, b], instruction))
        prefix = self._frame.prefix(with_instruction(query.strip(), instruction))
        end = self._frame.suffix
        line = end[1 : end.index(self._frame.token_id("<|im_start|>"))]
        texts = self._frame.documents(prefix, ["Document A:", "Document B:", a, b])
        title_a, title_b, of_a, of_b = (text.ids[: -len(end)] for text in texts)
        frame = len(prefix) + len(title_a) + len(title_b) + 4 * len(line) + len(end)
        room = self.max_tokens - frame
        if room < 2 * _LEAST_OF_TWO:
            raise BadInput(
                f"The query and its instruction take {len(prefix)} tokens and leave two documents "
                f"no room; {self.max_tokens} are read in all. Shorten the instruction."
            )
        of_a, of_b = cut_both(of_a, of_b, room)
        first = [*title_a, *line, *of_a, *line, *line]
        return TrainingRow([*prefix, *first, *title_b, *line, *of_b, *end])

    def logits(self, rows: Sequence[TrainingRow]) -> torch.Tensor:
        """Shape (rows,). Rows are filled up behind their end, which no earlier token sees, so no
        mask is needed and attention stays causal and fast."""
        pad = int(self._plain.config.pad_token_id or 0)
        ids = padded([row.ids for row in rows], pad)[0].to(self.device)
        # Not through `module`: adapters lie in the layers, and the vocabulary is not needed.
        hidden = self._plain.model(input_ids=ids, use_cache=False).last_hidden_state
        places = torch.tensor([len(row.ids) - 1 for row in rows], device=self.device)
        last = hidden[torch.arange(len(rows), device=self.device), places]
        with torch.autocast(self.device.type, enabled=False):
            logits: torch.Tensor = last.float() @ self._head().float()
        return logits

    def parameter_groups(self, settings: Settings) -> list[dict[str, Any]]:
        """Embeddings (and with them the row of "Yes", where they are one), each layer."""
        if self.lora is None and not self._plain.config.tie_word_embeddings:
            # Of an untied head one row is read, and the others would only decay.
            self._plain.lm_head.weight.requires_grad_(False)
        return groups(self.module, "model.", settings)

    def checkpoint_layers(self, on: bool) -> None:
        """Of the decoder."""
        if on:
            self._plain.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self._plain.activation_checkpointing_disable()

    def save(self, directory: Path) -> None:
        """Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = merged(self.module) if self.lora else self._plain.state_dict()
        save_weights(directory, self._plain, weights)
        config = self._plain.config
        config.architectures = [type(self._plain).__name__]
        config.save_pretrained(str(directory))
        self._save_tokenizer(directory)
        _save_modules(directory, int(self._true or 0), self._files.false_token)
        if self.lora and self.lora.save_adapter:
            save_adapter(self.module, directory / "adapter")

    def _head(self) -> torch.Tensor:
        """The row that gives the logit, shape (hidden size,)."""
        words: torch.Tensor = self._plain.lm_head.weight
        if self._files.false_token is None:
            return words[self._true]
        return words[self._true] - words[self._files.false_token]

    def _save_tokenizer(self, directory: Path) -> None:
        source = self._files.directory
        for file in ("tokenizer.json", *_TOKENIZER_FILES):
            if (source / file).is_file():
                shutil.copyfile(source / file, directory / file)
        settings = source / "tokenizer_config.json"
        old = read_json(settings) if settings.is_file() else {}
        old.pop("chat_template", None)
        _write(directory / "tokenizer_config.json", {**old, "model_max_length": self.max_tokens})
        (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def _files(name: str, directory: Path) -> ZerankFiles | None:
    """Also of a bare Qwen3 language model, which serving refuses."""
    file = directory / "config.json"
    config = read_json(file) if file.is_file() else {}
    architecture = str((config.get("architectures") or [""])[0])
    is_module = (directory / "modules.json").is_file()
    if architecture == "Qwen3ForCausalLM" and not is_module and not _has_remote_code(config):
        limit = min(longest_input(directory, config), MOST_TOKENS)
        return ZerankFiles(name, directory, "modules", config, None, None, limit)
    files = zerank_files(name, directory)
    if files is not None and files.layout == "classifier":
        raise WrongModel(
            f"The model {name!r} was converted to a classifier. Train the model it was made from."
        )
    return files


def _has_remote_code(config: dict[str, Any]) -> bool:
    return bool(config.get("auto_map"))


def _load(files: ZerankFiles, dtype: torch.dtype) -> Any:
    """Raises ModelNotFound, WrongModel."""
    own = {"model_type", "architectures", "auto_map", "transformers_version"}
    settings = {key: value for key, value in files.config.items() if key not in own}
    models: Any = Qwen3ForCausalLM
    with named_load_errors(files.name):
        config = Qwen3Config.from_dict({**settings, "attention_dropout": 0.0})
        model, report = models.from_pretrained(
            files.directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelNotFound(
            f"The weights of the model {files.name!r} are incomplete: {len(missing)} are missing, "
            f"the first is {missing[0]}. Download the model again, all of it."
        )
    return model


def _save_modules(directory: Path, true: int, false: int | None) -> None:
    kinds = [
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
    ]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (path, kind) in enumerate(kinds)
    ]
    (directory / "1_LogitScore").mkdir(exist_ok=True)
    _write(
        directory / "1_LogitScore" / "config.json",
        {"true_token_id": true, "false_token_id": false},
    )
    reads = {"method": "forward", "method_output_name": "logits"}
    _write(
        directory / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": reads, "message": {**reads, "format": "flat"}},
            "module_output_name": "causal_logits",
            "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
        },
    )
    _write(
        directory / "config_sentence_transformers.json",
        {"activation_fn": "torch.nn.modules.linear.Identity", "model_type": "CrossEncoder"},
    )
    _write(directory / "modules.json", modules)


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
