"""BERT-type encoders on a CPU without padding: the rows of a batch lie end to end.

Three savings over the plain forward pass, each exact: linear layers see real tokens only; weights
lie in the order the processor's kernels want, with activation and residual fused; of the last layer
only the row's first token is computed, where a classification head reads nothing else. Each thread
of the processor takes rows of its own.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers.activations import ACT2FN

from rerank.types import FloatArray

Tensor = torch.Tensor
Rows = Sequence[Sequence[int]]

# Tokens of one pass through the layers in one thread: fewer are slower, more gain nothing.
CHUNK_TOKENS = 4096
# Tokens of one batch: as without padding they cost the same in any company, enough for each thread
# to be busy to the end.
PACKED_BUDGET = 8192
# Rows shorter than this attend by plain matrix products in float32 as well: the flash kernel's
# blocks do not pay there.
SHORT = 96
# Largest difference of the logits to the plain forward pass that load-time checking allows, as a
# share of the plain logits' own size.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2}
# What the kernels fuse into a linear layer, as (name, algorithm).
_FUSED = {"gelu": ("gelu", "none"), "relu": ("relu", "")}
_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": functional.gelu,
    "relu": functional.relu,
}


def _has_kernels(dtype: torch.dtype) -> bool:
    """Whether this build of torch brings oneDNN's linear layers for this processor."""
    kernels: Any = torch.backends.mkldnn
    if not kernels.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Linear:
    """x W' + b, then the activation or plus a residual, with W in the kernels' own order."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: str | None = None) -> None:
        self._bias = bias
        self._fused = _FUSED.get(activation or "", ("none", ""))
        fused = activation is None or activation in _FUSED
        self._activation = None if fused else ACT2FN[activation]
        self._packed = _has_kernels(weight.dtype)
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight, CHUNK_TOKENS)
            if self._packed
            else weight
        )

    @classmethod
    def of(cls, *parts: torch.nn.Linear, activation: str | None = None) -> Linear:
        """Several layers of the same input are one with their outputs side by side."""
        weight = torch.cat([part.weight.detach() for part in parts])
        biases = [weight.new_zeros(len(p.weight)) if p.bias is None else p.bias for p in parts]
        return cls(weight, torch.cat([bias.detach() for bias in biases]), activation)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            kind, algorithm = self._fused
            y: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, kind, [], algorithm
            )
        else:
            y = _PLAIN[self._fused[0]](functional.linear(x, self._weight, self._bias))
        return y if self._activation is None else self._activation(y)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Without the activation."""
        if self._packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self._weight, self._bias, "add"
            )
            return y
        return functional.linear(x, self._weight, self._bias) + residual


@dataclass(frozen=True)
class Layer:
    """One encoder layer. `up` ends in the activation."""

    query: Linear
    key_value: Linear
    out: Linear
    after_attention: torch.nn.LayerNorm
    up: Linear
    down: Linear
    after_feed_forward: torch.nn.LayerNorm


@dataclass(frozen=True)
class Encoder:
    """The layers of a BERT-type body, and what makes its first hidden states.

    `embed`: (token ids, type ids, positions), each (1, tokens), -> (1, tokens, hidden).
    `position_pad`: the pad token from which RoBERTa counts positions; None counts from 0.
    """

    embed: Callable[[Tensor, Tensor, Tensor], Tensor]
    layers: Sequence[Layer]
    heads: int
    position_pad: int | None

    def hidden(self, rows: Rows, types: Rows | None = None) -> Tensor:
        """The last hidden state of every token, shape (tokens, hidden), the rows end to end."""
        return self._through(rows, types, only_first=False)

    def first(self, rows: Rows, types: Rows | None = None) -> Tensor:
        """The last hidden state of each row's first token, shape (rows, hidden)."""
        return self._through(rows, types, only_first=True)

    def _through(self, rows: Rows, types: Rows | None, only_first: bool) -> Tensor:
        """Shape (rows or tokens, hidden)."""
        bounds = [0, *np.cumsum([len(row) for row in rows]).tolist()]
        ids = _end_to_end(rows)
        kinds = _end_to_end(types) if types is not None and types[0] else np.zeros_like(ids)
        places = np.concatenate([self._positions(ids[a:b]) for a, b in itertools.pairwise(bounds)])
        filling = _filled(len(ids)) - len(ids)
        inputs = (np.pad(each, (0, filling))[None] for each in (ids, kinds, places))
        x = self.embed(*map(torch.from_numpy, inputs))[0]
        for layer in self.layers[:-1]:
            x = self._layer(layer, x, bounds, only_first=False)
        x = self._layer(self.layers[-1], x, bounds, only_first)
        return x[: len(rows) if only_first else len(ids)]

    def _positions(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.position_pad is None:
            return np.arange(len(row))
        real = row != self.position_pad
        return np.asarray(np.cumsum(real) * real + self.position_pad, dtype=np.int64)

    def _layer(self, layer: Layer, x: Tensor, bounds: list[int], only_first: bool) -> Tensor:
        tokens, width = x.shape
        shape = (self.heads, width // self.heads)
        asking = x[_first_places(bounds)] if only_first else x
        query = layer.query(asking).view(-1, *shape)
        key, value = layer.key_value(x).view(tokens, 2, *shape).unbind(1)
        context = torch.zeros_like(query)
        for place, (start, end) in enumerate(itertools.pairwise(bounds)):
            own = slice(place, place + 1) if only_first else slice(start, end)
            context[own] = _attention(query[own], key[start:end], value[start:end])
        x = layer.after_attention(layer.out.plus(context.view(-1, width), asking))
        y: Tensor = layer.after_feed_forward(layer.down.plus(layer.up(x), x))
        return y


def _filled(tokens: int) -> int:
    """How many tokens the linear layers see. For every new number the kernels' library makes a
    program of its own, which takes milliseconds and megabytes that it keeps."""
    step = 16 if tokens < 64 else 64
    return -(-tokens // step) * step


def _first_places(bounds: list[int]) -> Tensor:
    starts = bounds[:-1]
    return torch.tensor(starts + [0] * (_filled(len(starts)) - len(starts)))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Of one row; each (tokens, heads, width of a head), as is the result."""
    query, key, value = (each.transpose(0, 1) for each in (query, key, value))
    if query.dtype == torch.float32 and query.shape[1] >= SHORT:
        mixed = functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
    else:
        # The flash kernel multiplies bfloat16 blocks too small for its instructions.
        scores = torch.baddbmm(
            query.new_empty(()), query, key.transpose(1, 2), beta=0.0, alpha=query.shape[2] ** -0.5
        )
        mixed = torch.bmm(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(0, 1)


def _end_to_end(rows: Rows) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])


# --- from a model of transformers ---------------------------------------------------------------


def packed_encoder(body: Any) -> Encoder | None:
    """The body of a BERT, RoBERTa, XLM-RoBERTa, ELECTRA or DistilBERT model; None for others, for
    other devices than the CPU and for other number formats than float32 and bfloat16.

    Weights are copied, and embeddings and norms shared. The caller compares it to the model.
    """
    config = body.config
    known = _KINDS.get(config.model_type)
    if known is None or getattr(config, "is_decoder", False):
        return None
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    if body.device.type != "cpu" or body.dtype not in TOLERANCE:
        return None
    linears = (m for m in body.modules() if isinstance(m, torch.nn.Linear))
    if any(type(linear) is not torch.nn.Linear for linear in linears):
        return None
    return known(body)


def _bert(body: Any) -> Encoder:
    config = body.config
    counts_from_pad = config.model_type in {"roberta", "xlm-roberta", "camembert"}
    project = getattr(body, "embeddings_project", None)

    def embed(ids: Tensor, types: Tensor, places: Tensor) -> Tensor:
        x: Tensor = body.embeddings(input_ids=ids, token_type_ids=types, position_ids=places)
        return x if project is None else project(x)

    layers = []
    for one in body.encoder.layer:
        own = one.attention.self
        layers.append(
            Layer(
                query=Linear.of(own.query),
                key_value=Linear.of(own.key, own.value),
                out=Linear.of(one.attention.output.dense),
                after_attention=one.attention.output.LayerNorm,
                up=Linear.of(one.intermediate.dense, activation=config.hidden_act),
                down=Linear.of(one.output.dense),
                after_feed_forward=one.output.LayerNorm,
            )
        )
    pad = int(config.pad_token_id) if counts_from_pad else None
    return Encoder(embed, layers, config.num_attention_heads, pad)


def _distilbert(body: Any) -> Encoder:
    config = body.config

    def embed(ids: Tensor, types: Tensor, places: Tensor) -> Tensor:
        x: Tensor = body.embeddings(input_ids=ids, position_ids=places)
        return x

    layers = [
        Layer(
            query=Linear.of(one.attention.q_lin),
            key_value=Linear.of(one.attention.k_lin, one.attention.v_lin),
            out=Linear.of(one.attention.out_lin),
            after_attention=one.sa_layer_norm,
            up=Linear.of(one.ffn.lin1, activation=config.activation),
            down=Linear.of(one.ffn.lin2),
            after_feed_forward=one.output_layer_norm,
        )
        for one in body.transformer.layer
    ]
    return Encoder(embed, layers, config.n_heads, None)


_KINDS: dict[str, Callable[[Any], Encoder]] = {
    **dict.fromkeys(["bert", "roberta", "xlm-roberta", "camembert", "electra"], _bert),
    "distilbert": _distilbert,
}


# --- the scorer ---------------------------------------------------------------------------------


class EvenThreads:
    """Spreads rows over threads that each compute alone, so that none waits for another inside a
    layer. As many as torch uses at the time."""

    def __init__(self) -> None:
        self._count = torch.get_num_threads()
        self._pool = _threads_of_their_own(self._count) if self._count > 1 else None

    def __call__(
        self, lengths: Sequence[int], compute: Callable[[list[int]], FloatArray]
    ) -> FloatArray:
        """One value per row; `compute` takes places and gives theirs."""
        values = np.zeros(len(lengths), dtype=np.float32)
        groups = even_groups(lengths, self._count)
        through = map(compute, groups) if self._pool is None else self._pool.map(compute, groups)
        for group, computed in zip(groups, through, strict=True):
            values[group] = computed
        return values


class PackedScorer:
    """(token ids, type ids) of each row -> its logit, for a classifier with one output."""

    def __init__(self, encoder: Encoder, head: Callable[[Tensor], Tensor]) -> None:
        self._encoder = encoder
        self._head = head
        self._threads = EvenThreads()

    def __call__(self, rows: Rows, types: Rows | None = None) -> FloatArray:
        """Shape (rows,). A row's logit does not depend on the others'."""

        @torch.inference_mode()
        def compute(places: list[int]) -> FloatArray:
            own = [types[place] for place in places] if types is not None else None
            first = self._encoder.first([rows[place] for place in places], own)
            logits = self._head(first).reshape(len(places))
            return np.asarray(logits.numpy(), dtype=np.float32)

        return self._threads([len(row) for row in rows], compute)


def packed_scorer(classifier: Any) -> PackedScorer | None:
    """For a classifier of transformers with one output; None where this module does not give the
    logits of its own forward pass, which is tried on random tokens.

    Where it gives a scorer, `classifier` has lost
    its layers, which would be in memory twice.
    """
    body = getattr(classifier, classifier.base_model_prefix, None)
    if body is None or getattr(classifier, "num_labels", 0) != 1:
        return None
    encoder = packed_encoder(body)
    if encoder is None:
        return None
    scorer = PackedScorer(encoder, _head(classifier, body))
    if not _agrees(scorer, classifier):
        return None
    holder = body.transformer if hasattr(body, "transformer") else body.encoder
    holder.layer = torch.nn.ModuleList()
    return scorer


def _head(classifier: Any, body: Any) -> Callable[[Tensor], Tensor]:
    """What the classifier does with the first token's last hidden state. In float32: it costs
    nothing, and bfloat16 logits would have many ties."""
    last = copy.deepcopy(classifier.classifier).float()
    if hasattr(classifier, "pre_classifier"):
        before = copy.deepcopy(classifier.pre_classifier).float()
        return lambda x: last(functional.relu(before(x.float())))
    if getattr(body, "pooler", None) is not None:
        pooler = copy.deepcopy(body.pooler).float()
        return lambda x: last(pooler(x.float()[:, None]))
    return lambda x: last(x.float()[:, None])


@torch.inference_mode()
def _agrees(scorer: PackedScorer, classifier: Any) -> bool:
    config = classifier.config
    chance = np.random.default_rng(7)
    longest = min(int(config.max_position_embeddings) - 4, 200)
    kinds = int(getattr(config, "type_vocab_size", 0) or 1)
    for length in {4, longest // 2, longest}:
        row = chance.integers(4, config.vocab_size, size=length).tolist()
        types = [0] * (length // 2) + [kinds - 1] * (length - length // 2)
        inputs = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, length)}
        if config.model_type != "distilbert":
            inputs["token_type_ids"] = torch.tensor([types])
        plain = float(classifier(**inputs).logits.float())
        allowed = TOLERANCE[classifier.dtype] * max(1.0, abs(plain))
        # Not "greater": a number that is none agrees with nothing.
        if not abs(plain - float(scorer([row, row[:3]], [types, types[:3]])[0])) <= allowed:
            return False
    return True


def even_groups(lengths: Sequence[int], threads: int) -> list[list[int]]:
    """Places 0..n-1 in groups of about equal length, at most about CHUNK_TOKENS, as many as keep
    all threads busy to the end; the longest text goes to the emptiest group."""
    wanted = -(-sum(lengths) // CHUNK_TOKENS)
    count = min(-(-wanted // threads) * threads, len(lengths))
    groups: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, group) for group in range(count)]
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        tokens, group = filled[0]
        groups[group].append(place)
        heapq.heapreplace(filled, (tokens + lengths[place], group))
    return groups


def _threads_of_their_own(count: int) -> ThreadPoolExecutor:
    """Threads that each compute alone. torch's setting is a thread's own, except that later
    threads start with the one last made, which is therefore put back."""
    before = torch.get_num_threads()
    all_there = threading.Barrier(count + 1)

    def alone() -> None:
        torch.set_num_threads(1)
        all_there.wait()

    pool = ThreadPoolExecutor(count, "packed")
    for _ in range(count):
        pool.submit(alone)
    all_there.wait()
    torch.set_num_threads(before)
    return pool
