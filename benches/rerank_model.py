"""A MiniLM cross-encoder for the rerank bench: the built-in body, and a head fitted in seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from benches.rerank_data import Asked
from rerank.inference.models import directory_of
from rerank.inference.packed_bert import packed_encoder

MAX_TOKENS = 300
# Of each request that the head is fitted to: all relevant documents and so many others.
OTHERS = 14
# Of nDCG@10 .30 / .39 / .59 / .59 at .01 / .1 / 1 / 10.
RIDGE = 10.0
# Standard deviation of the logits, about what trained cross-encoders give.
SPREAD = 2.5
# The pooler's tanh is kept to where it is straight.
STRAIGHT = 0.05


def save_fitted(folder: Path, asked: Sequence[Asked]) -> Path:
    """Ridge regression of relevance on the first token's last hidden state; returns the folder.

    The scores only have to order texts better than chance does, so that a row which computes
    something else is seen in nDCG@10.
    """
    source = directory_of("")
    model = BertForSequenceClassification.from_pretrained(source, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    queries, documents, wanted = [], [], []
    for one in asked:
        others = [place for place, grade in enumerate(one.grades) if grade == 0][:OTHERS]
        for place in [p for p, grade in enumerate(one.grades) if grade > 0] + others:
            queries.append(one.query)
            documents.append(one.documents[place])
            wanted.append(float(one.grades[place] > 0))
    read = tokenizer(queries, documents, truncation="only_second", max_length=MAX_TOKENS)
    encoder = packed_encoder(model.bert)
    if encoder is None:
        raise SystemExit("The built-in model is not of the BERT type on this machine.")
    with torch.inference_mode():
        hidden = torch.cat(
            [
                encoder.first(
                    read["input_ids"][start : start + 8], read["token_type_ids"][start : start + 8]
                )
                for start in range(0, len(queries), 8)
            ]
        )
    _fit(model, hidden.numpy().astype(np.float64), np.array(wanted))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("vocab.txt", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_max_length"] = MAX_TOKENS
    settings.setdefault("pad_token", "[PAD]")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _fit(model: BertForSequenceClassification, hidden: np.ndarray, wanted: np.ndarray) -> None:
    mean, spread = hidden.mean(axis=0), hidden.std(axis=0) + 1e-6
    x = (hidden - mean) / spread
    y = wanted - wanted.mean()
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
    weights *= SPREAD / (x @ weights).std() / spread
    width = hidden.shape[1]
    with torch.no_grad():
        model.bert.pooler.dense.weight.copy_(STRAIGHT * torch.eye(width))
        model.bert.pooler.dense.bias.zero_()
        model.classifier.weight.copy_(torch.tensor(weights / STRAIGHT)[None])
        model.classifier.bias.fill_(float(-mean @ weights))
