"""BERT-type encoders with one label, trained in the frame the cross-encoder serves in."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from rerank.errors import BadInput, ModelNotFound, TrainingFailed, WrongModel
from rerank.inference.cross_encoder import MAX_TOKENS
from rerank.inference.fingerprint import fingerprint
from rerank.inference.models import max_tokens as longest_input
from rerank.inference.models import read_json, refuse_missing_files
from rerank.inference.padding import padded
from rerank.inference.pair_frame import MIN_DOCUMENT_TOKENS, PairFrame, too_long
from rerank.inference.prompts import with_instruction
from rerank.inference.texts import refuse_what_is_no_text
from rerank.inference.weights import named_load_errors
from rerank.types import RerankRequest

from .bases import TrainingRow
from .lora import LoraSettings, merged, save_adapter, with_adapter
from .parameters import groups
from .settings import Settings
from .two_documents import cut_both
from .weight_files import save_weights

FAMILIES = {
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "deberta-v2",
    "modernbert",
    "mpnet",
}
# What the families call dropout between the layers, and within attention.
_DROPOUTS = (
    "hidden_dropout_prob",
    "dropout",
    "classifier_dropout",
    "seq_classif_dropout",
    "pooler_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


def is_encoder(directory: Path) -> bool:
    """Whether the directory holds a model of a family named here."""
    config = _body(directory) / "config.json"
    return config.is_file() and read_json(config).get("model_type") in FAMILIES


class CrossEncoderBase:
    """`Trainable` over an encoder's directory: with a head of one label, or an embedder's body,
    which gets a head whose last layer is zero, so that training starts from equal scores."""

    kind = "cross-encoder"
    temperature = 1.0

    def __init__(
        self,
        name: str,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        max_tokens: int,
        lora: LoraSettings | None,
        dropout: float,
    ) -> None:
        if dtype != torch.float32:
            raise TrainingFailed("Encoders train with float32 weights; use autocast for speed.")
        body = _body(directory)
        refuse_missing_files(name, directory)
        _refuse_standing_prompt(name, directory)
        self.name = name
        self.revision = fingerprint(directory)
        self.device = device
        self.lora = lora
        self._plain = _load(name, body, dropout).to(device)
        tokenizers: Any = AutoTokenizer
        self._tokenizer = tokenizers.from_pretrained(body, local_files_only=True)
        limit = _limit(directory, body, self._plain)
        self.max_tokens = min(max_tokens, limit) if max_tokens else limit
        self._tokenizer.model_max_length = self.max_tokens
        self._frame = PairFrame(name, self._tokenizer, self.max_tokens)
        self._tail = _tail(self._frame)
        self._pad = int(self._tokenizer.pad_token_id or 0)
        self._plain.config.use_cache = False
        self.module: torch.nn.Module = self._plain
        if lora is not None:
            self.module = with_adapter(self._plain, lora)
            for part, weight in self._plain.named_parameters():
                if not part.startswith(f"{self._plain.base_model_prefix}."):
                    weight.requires_grad_(True)

    def rows(
        self,
        query: str,
        instruction: str,
        documents: Sequence[str],
        priors: Sequence[float] | None = None,
    ) -> list[TrainingRow]:
        """Raises BadInput."""
        refuse_what_is_no_text(RerankRequest(query, documents, instruction))
        framed = self._frame.rows(with_instruction(query, instruction), documents)
        return [TrainingRow(row.ids, row.types) for row in framed.rows]

    def pair_row(self, query: str, instruction: str, a: str, b: str) -> TrainingRow:
        """[CLS] query [SEP] a [SEP] b [SEP], both documents of the second type."""
        refuse_what_is_no_text(RerankRequest(query, [a, b], instruction))
        framed = self._frame.rows(with_instruction(query, instruction), [a, b, ""])
        one, two, empty = framed.rows
        before, end = len(empty.ids) - self._tail, empty.ids[-self._tail :]
        room = self.max_tokens - len(empty.ids) - self._tail
        if room < 2 * MIN_DOCUMENT_TOKENS:
            most = self.max_tokens - 2 * (MIN_DOCUMENT_TOKENS + self._tail)
            raise BadInput(too_long(before, most))
        first, second = cut_both(one.ids[before : -self._tail], two.ids[before : -self._tail], room)
        ids = [*empty.ids[:before], *first, *end, *second, *end]
        if not empty.types:
            return TrainingRow(ids)
        documents = [empty.types[-1]] * (len(ids) - before)
        return TrainingRow(ids, [*empty.types[:before], *documents])

    def logits(self, rows: Sequence[TrainingRow]) -> torch.Tensor:
        """Shape (rows,)."""
        ids, mask = padded([row.ids for row in rows], self._pad)
        features = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        if rows[0].types:
            types = padded([row.types for row in rows], 0)[0]
            features["token_type_ids"] = types.to(self.device)
        found: torch.Tensor = self.module(**features).logits[:, 0]
        return found.float()

    def parameter_groups(self, settings: Settings) -> list[dict[str, Any]]:
        """Embeddings, each layer, the head."""
        return groups(self.module, f"{self._plain.base_model_prefix}.", settings)

    def checkpoint_layers(self, on: bool) -> None:
        """Of the encoder."""
        if on:
            self._plain.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self._plain.activation_checkpointing_disable()

    def save(self, directory: Path) -> None:
        """The layout of sentence-transformers' CrossEncoder. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = merged(self.module) if self.lora else self._plain.state_dict()
        save_weights(directory, self._plain, weights)
        config = self._plain.config
        config.architectures = [type(self._plain).__name__]
        settings = {
            **config.to_dict(),
            "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
        }
        text = json.dumps(settings, indent=1, default=str) + "\n"
        (directory / "config.json").write_text(text, encoding="utf-8")
        self._tokenizer.save_pretrained(str(directory))
        if self.lora and self.lora.save_adapter:
            save_adapter(self.module, directory / "adapter")


def _tail(frame: PairFrame) -> int:
    """How many ids stand behind a document."""
    full, empty = (row.ids for row in frame.rows("one", ["two", ""]).rows)
    pairs = zip(reversed(full), reversed(empty), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _body(directory: Path) -> Path:
    """Where config and weights lie: sentence-transformers may keep them in a folder."""
    modules = directory / "modules.json"
    for module in read_json(modules) if modules.is_file() else []:
        if str(module.get("type", "")).endswith(".Transformer"):
            return directory / str(module.get("path", ""))
    return directory


def _refuse_standing_prompt(name: str, directory: Path) -> None:
    file = directory / "config_sentence_transformers.json"
    if file.is_file() and read_json(file).get("default_prompt_name"):
        raise WrongModel(
            f"The model {name!r} puts a prompt of its own before every query, which training does "
            "not know. Choose a base without one."
        )


def _limit(directory: Path, body: Path, model: Any) -> int:
    """Tokens of one row: the files' limit, and no more than there are positions."""
    limit = min(longest_input(directory, read_json(body / "config.json")), MAX_TOKENS)
    embeddings = getattr(model.base_model, "embeddings", None)
    padding, positions = (
        getattr(embeddings, key, None) for key in ("padding_idx", "position_embeddings")
    )
    if padding is not None and positions is not None:
        # RoBERTa counts positions from behind its pad token.
        limit = min(limit, int(positions.num_embeddings) - int(padding) - 1)
    return limit


def _load(name: str, body: Path, dropout: float) -> Any:
    """The model with one label. Raises ModelNotFound, WrongModel."""
    configs: Any = AutoConfig
    models: Any = AutoModelForSequenceClassification
    with named_load_errors(name):
        config = configs.from_pretrained(body, local_files_only=True)
        architecture = str((config.architectures or [""])[0])
        if architecture.endswith("ForSequenceClassification") and config.num_labels != 1:
            raise WrongModel(
                f"The model {name!r} gives {config.num_labels} numbers for a pair; a reranker "
                "gives one. Choose another base."
            )
        config.num_labels = 1
        for key, value in [
            *((key, dropout) for key in _DROPOUTS),
            *((key, 0.0) for key in _ATTENTION_DROPOUTS),
        ]:
            if hasattr(config, key):
                setattr(config, key, value)
        model, report = models.from_pretrained(
            body,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    _start_head_at_zero(name, model, sorted(report["missing_keys"]))
    return model


def _start_head_at_zero(name: str, model: Any, missing: Sequence[str]) -> None:
    """Raises ModelNotFound where more than head and pooler are missing."""
    prefix = f"{model.base_model_prefix}."
    of_body = [
        each for each in missing if each.startswith(prefix) and not each.startswith(f"{prefix}pool")
    ]
    if of_body:
        raise ModelNotFound(
            f"The weights of the model {name!r} are incomplete: {len(of_body)} are missing, the "
            f"first is {of_body[0]}. Download the model again, all of it."
        )
    with torch.no_grad():
        for part, weight in model.named_parameters():
            if part in missing and weight.shape[0] == 1:
                weight.zero_()
