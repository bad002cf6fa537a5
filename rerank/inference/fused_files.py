"""What the built-in reranker is made of: the embedder's weights, and what training changed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from rerank.errors import ModelNotFound, WrongModel
from rerank.inference.fingerprint import fingerprint, revision
from rerank.inference.fused_head import Head, built_in_head
from rerank.inference.models import UNTRAINED, embedder_facts, read_json

logger = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# In config.json, so that no other loader takes the directory for its own.
KIND = "podium-fused-maxsim"
IMPORTANCE = "importance"
# Longer documents are cut. A passage is about 220 tokens.
MAX_DOCUMENT_TOKENS = 256


@dataclass(frozen=True)
class FusedFiles:
    """`directory` None: untrained. `base`: the embedder whose weights are the start.
    `max_document_tokens`: with its two frame tokens."""

    name: str
    description: str
    base: str
    head: Head
    directory: Path | None = None
    max_document_tokens: int = MAX_DOCUMENT_TOKENS

    @property
    def tokenizer_file(self) -> Path:
        return embedder_facts(self.base).tokenizer_file

    @property
    def scale(self) -> Literal["untrained", "sigmoid"]:
        return "untrained" if self.directory is None else "sigmoid"

    def encoder_revision(self, dtype: torch.dtype) -> str:
        """Changes with whatever MaxSim depends on: weights, number format and limit."""
        own = "" if self.directory is None else f"-{_digest(self.directory / WEIGHTS)}"
        base = revision(embedder_facts(self.base).directory, dtype)
        return f"{base}{own}-{self.max_document_tokens}"

    def revision(self, dtype: torch.dtype) -> str:
        """Changes with the base, what training changed, the head and the number format."""
        own = "" if self.directory is None else f"-{fingerprint(self.directory)}"
        head = "-".join(f"{value:g}" for value in asdict(self.head).values())
        limit = self.max_document_tokens
        return f"{revision(embedder_facts(self.base).directory, dtype)}{own}-{head}-{limit}"


def untrained() -> FusedFiles:
    """Before any training of the encoder: its weights as installed, the head fitted to training
    queries. Raises ModelNotFound, WrongModel."""
    facts = embedder_facts("")
    return FusedFiles(
        UNTRAINED,
        "An untrained baseline: the first stage's score, corrected by how well the words of query "
        f"and passage match in context ({facts.name}).",
        "",
        built_in_head(),
    )


def fused_files(name: str, directory: Path) -> FusedFiles | None:
    """None when the directory holds a model of another kind. Raises WrongModel."""
    config = directory / CONFIG
    found = read_json(config) if config.is_file() else {}
    if found.get("kind") != KIND:
        return None
    try:
        return FusedFiles(
            name,
            str(found["description"]),
            str(found["base"]),
            Head(**{key: float(value) for key, value in found["head"].items()}),
            directory,
            int(found["max_document_tokens"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WrongModel(
            f"The file {CONFIG} of the model {name!r} is broken ({error}). Copy the model again."
        ) from error


def load_encoder(files: FusedFiles, dtype: torch.dtype) -> tuple[Any, torch.Tensor]:
    """The encoder, and the importance vector (hidden,) in float32. Raises ModelNotFound for missing
    weights, WrongModel for such as do not fit the base."""
    model: Any = AutoModel.from_pretrained(
        embedder_facts(files.base).directory,
        dtype=dtype,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        add_pooling_layer=False,
    )
    if model.config.model_type != "bert":
        raise WrongModel(f"The base of {files.name!r} is not of the BERT type.")
    importance = torch.zeros(model.config.hidden_size)
    if files.directory is None:
        return model, importance
    weights = _read(files.name, files.directory)
    if files_base := json.loads((files.directory / CONFIG).read_text("utf-8")).get("base_weights"):
        own = fingerprint(embedder_facts(files.base).directory)
        if own != files_base:
            raise WrongModel(
                f"The model {files.name!r} was trained on other weights of its base than are "
                "installed. Install the package versions of requirements.txt."
            )
    importance = weights.pop(IMPORTANCE, importance).float()
    missing = sorted(set(weights) - set(model.state_dict()))
    if missing:
        raise WrongModel(f"The weights of {files.name!r} do not fit its base: {missing[0]}.")
    model.load_state_dict({key: value.to(dtype) for key, value in weights.items()}, strict=False)
    return model, importance


def write_fused(
    directory: Path,
    *,
    base: str,
    description: str,
    head: Head,
    weights: Mapping[str, torch.Tensor],
    max_document_tokens: int,
) -> None:
    """Only what differs from the base; matrices in float16. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = {
        name: (value.detach().half() if value.dim() > 1 else value.detach().float()).contiguous()
        for name, value in weights.items()
    }
    save_file(kept, str(directory / WEIGHTS), metadata={"format": "pt"})
    config = {
        "kind": KIND,
        "base": base,
        "base_weights": fingerprint(embedder_facts(base).directory),
        "description": description,
        "head": asdict(head),
        "max_document_tokens": max_document_tokens,
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def _read(name: str, directory: Path) -> dict[str, torch.Tensor]:
    file = directory / WEIGHTS
    if not file.is_file():
        raise ModelNotFound(f"The model {name!r} has no {WEIGHTS}. Copy the model again.")
    return dict(load_file(str(file)))
