"""A tiny BERT made from a config: two layers, random weights of a fixed seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from rerank.inference.models import directory_of


def config(**changes: object) -> BertConfig:
    fields = {
        "vocab_size": 30522,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        **changes,
    }
    return BertConfig(**fields)


def save_cross_encoder(directory: Path, **changes: object) -> Path:
    """A one-label cross-encoder with the built-in model's tokenizer; returns the directory."""
    torch.manual_seed(7)
    model = BertForSequenceClassification(config(num_labels=1, **changes))
    return _save(model, directory)


def save_headless(directory: Path) -> Path:
    """The same body without any scoring head."""
    torch.manual_seed(7)
    return _save(BertModel(config()), directory)


def _save(model: torch.nn.Module, directory: Path) -> Path:
    model.save_pretrained(directory)  # type: ignore[operator]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(directory_of("") / name, directory / name)
    return directory
