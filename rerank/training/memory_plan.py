"""How much GPU memory training takes, by arithmetic. No torch.

Weights, gradients and optimiser states are exact (a test compares them with a small model's).
Activations are counted from what transformers' Qwen3 layer keeps for the backward pass; the same
test holds them to `ACTIVATION_FACTOR`. No figure here was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import WrongModel
from rerank.inference.models import directory_of, read_json

# Counted activations lie within this factor of measured ones.
ACTIVATION_FACTOR = 1.1
GPU_GB = (16.0, 24.0, 40.0, 48.0, 80.0)
# Of a GPU's memory, what the driver, the kernels' workspace and gaps between blocks leave.
_USABLE_SHARE = 0.93
_CONTEXT_BYTES = 1.0e9
# Fewer tokens of a micro-batch than a query with one long document takes are of no use.
_LEAST_TOKENS = 1024
_FLOAT32, _BFLOAT16 = 4, 2


@dataclass(frozen=True)
class Architecture:
    """A Qwen3 decoder. `tied`: the vocabulary's rows are also the input embeddings."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = True

    @property
    def queries(self) -> int:
        """Width of all heads' queries."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all heads' keys."""
        return self.kv_heads * self.head_size

    @property
    def linear_shapes(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one layer: q, k, v, o, gate, up, down."""
        h, q, k, i = self.hidden, self.queries, self.keys, self.intermediate
        return [(h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h)]

    @property
    def linear_parameters(self) -> int:
        """Of all layers."""
        return self.layers * sum(wide * high for wide, high in self.linear_shapes)

    @property
    def parameters(self) -> int:
        """vocabulary x hidden (twice where untied) + linear layers + norms: two of `hidden` and two
        of `head_size` a layer, one of `hidden` at the end."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        norms = self.layers * 2 * (self.hidden + self.head_size) + self.hidden
        return embeddings + self.linear_parameters + norms

    def adapter_parameters(self, rank: int) -> int:
        """rank x (in + out) of every linear layer."""
        return self.layers * rank * sum(wide + high for wide, high in self.linear_shapes)


@dataclass(frozen=True)
class Method:
    """`rank` of LoRA, 0 for full training. `checkpointing`: only layers' inputs are kept.
    `weights`: bytes of one frozen weight under LoRA."""

    rank: int = 0
    checkpointing: bool = True
    autocast: bool = True
    weights: int = _BFLOAT16

    @property
    def name(self) -> str:
        kind = f"LoRA r={self.rank}" if self.rank else "full"
        return f"{kind}, checkpointing" if self.checkpointing else kind


METHODS = (Method(0, True), Method(0, False), Method(16, True), Method(16, False))


@dataclass(frozen=True)
class Memory:
    """Bytes. `copies`: of the weights in bfloat16, which autocast makes for a step. `per_token` of
    a micro-batch, padding included."""

    weights: int
    gradients: int
    optimiser: int
    copies: int
    per_token: int

    @property
    def fixed(self) -> int:
        """Whatever the micro-batch."""
        return self.weights + self.gradients + self.optimiser + self.copies

    def tokens_on(self, gpu_gb: float) -> int:
        """Of the largest micro-batch that fits a GPU of so many GB (10^9 bytes); 0 for none that is
        of use."""
        left = gpu_gb * 1e9 * _USABLE_SHARE - _CONTEXT_BYTES - self.fixed
        tokens = int(left / self.per_token)
        return tokens if tokens >= _LEAST_TOKENS else 0


ZERANK_1_SMALL = Architecture("zerank-1-small", 28, 2048, 16, 8, 128, 6144, 151_936)
ZERANK_2 = Architecture("zerank-2", 36, 2560, 32, 8, 128, 9728, 151_936)
_KNOWN = {
    "1.7b": ZERANK_1_SMALL,
    "zerank-1-small": ZERANK_1_SMALL,
    "4b": ZERANK_2,
    "zerank-1": ZERANK_2,
    "zerank-2": ZERANK_2,
}


def memory_of(architecture: Architecture, method: Method) -> Memory:
    """What one GPU holds while it trains.

    Full: 4 bytes of weight, 4 of gradient and 8 of AdamW's two means per parameter (an untied
    vocabulary takes part with none but the weight), and 2 for each linear weight under autocast.
    LoRA: `method.weights` per parameter, 16 bytes per adapter parameter.
    """
    total = architecture.parameters
    if method.rank:
        trained = architecture.adapter_parameters(method.rank)
        weights = method.weights * total + _FLOAT32 * trained
        copies = 0
        if method.autocast and method.weights != _BFLOAT16:
            copies = _BFLOAT16 * architecture.linear_parameters
    else:
        trained = total
        if not architecture.tied:
            trained -= architecture.vocabulary * architecture.hidden
        weights = _FLOAT32 * total
        copies = _BFLOAT16 * architecture.linear_parameters if method.autocast else 0
    return Memory(
        weights=weights,
        gradients=_FLOAT32 * trained,
        optimiser=2 * _FLOAT32 * trained,
        copies=copies,
        # Gradients on their way back through a layer are no more than what it keeps.
        per_token=activation_bytes(architecture, method) + layer_bytes(architecture, method),
    )


def activation_bytes(architecture: Architecture, method: Method) -> int:
    """Per token, of all layers and the last norm.

    With checkpointing: `hidden` numbers a layer (its input), and one layer's own, which are there
    again while its gradient is computed. A layer's own: see `layer_bytes`.
    """
    own = layer_bytes(architecture, method)
    last = architecture.hidden * (_FLOAT32 if method.rank else 2 * _FLOAT32)
    if not method.checkpointing:
        return architecture.layers * own + last
    return architecture.layers * architecture.hidden * _stream_width(method) + own + last


def layer_bytes(architecture: Architecture, method: Method) -> int:
    """Per token, what one layer keeps for its backward pass, attention's sums left out.

    norms: two of `hidden` and those of queries and keys keep their input in float32, and their
    outcome where their own weight is trained. attention: queries and keys (turned), values, output.
    mlp: gate, its activation, up. inputs: of the linear layers; autocast makes a copy for each of
    them, LoRA on bfloat16 weights one in float32, and otherwise layers that read the same share it.
    """
    h, q, k, i = (
        architecture.hidden,
        architecture.queries,
        architecture.keys,
        architecture.intermediate,
    )
    width = _product_width(method)
    norms = (2 * h + q + k) * _FLOAT32
    if not method.rank:
        norms += 2 * h * _stream_width(method) + (q + k) * width
    attention = (2 * q + 2 * k) * width
    mlp = 3 * i * width
    each = 5 * h + i + (q if method.rank else 0)
    if method.autocast:
        inputs = each * _BFLOAT16
    elif method.rank and method.weights == _BFLOAT16:
        inputs = each * _FLOAT32
    else:
        inputs = (2 * h + i) * _FLOAT32
    adapters = len(architecture.linear_shapes) * method.rank
    return norms + attention + mlp + inputs + adapters * (2 if method.autocast else 4)


def architecture_of(model: str) -> Architecture:
    """By "1.7b", "4b", a zerank model's name, or a directory. Raises ModelNotFound, WrongModel for
    another kind of model."""
    known = _KNOWN.get(model.lower().rsplit("/", 1)[-1].removesuffix("-reranker"))
    if known is not None and not Path(model).is_dir():
        return known
    config = read_json(directory_of(model) / "config.json")
    try:
        return _from_config(Path(model).name, config)
    except KeyError as error:
        raise WrongModel(
            f"The memory of {model!r} cannot be planned: its config.json names no {error}, so it "
            "is no Qwen3 decoder. Encoders of the BERT type are small enough for any GPU."
        ) from error


def _from_config(name: str, config: dict[str, Any]) -> Architecture:
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    return Architecture(
        name=name,
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config["num_key_value_heads"]),
        head_size=int(config.get("head_dim") or hidden // heads),
        intermediate=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def plan_table(model: str, gpu_gb: float | None = None) -> str:
    """The table that `python -m rerank zelo plan` prints: a line per method with its memory in GB
    and, for each GPU, the tokens of the largest micro-batch. `model`: see `architecture_of`;
    `gpu_gb`: of one GPU, None for all of GPU_GB. Raises ModelNotFound, WrongModel."""
    architecture = architecture_of(model)
    sizes = GPU_GB if gpu_gb is None else (gpu_gb,)
    head = ["method", "weights", "gradients", "optimiser", "copies", "per 1,000 tokens"]
    rows = [[*head, *(f"{size:g} GB" for size in sizes)]]
    for method in METHODS:
        memory = memory_of(architecture, method)
        parts = (memory.weights, memory.gradients, memory.optimiser, memory.copies)
        rows.append(
            [
                method.name,
                *(f"{part / 1e9:.2f}" for part in parts),
                f"{memory.per_token * 1000 / 1e9:.2f}",
                *(
                    f"{memory.tokens_on(size):,}" if memory.tokens_on(size) else "–"
                    for size in sizes
                ),
            ]
        )
    title = (
        f"{architecture.name}: {architecture.parameters / 1e9:.2f} billion parameters. Memory in "
        "GB; under each GPU the tokens of the largest micro-batch, – where it does not fit.\n"
        "By arithmetic; not measured on a GPU. Leave a tenth of the tokens unused."
    )
    return f"{title}\n\n{_aligned(rows)}\n"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _product_width(method: Method) -> int:
    """Bytes of a number that a matrix product gives."""
    if method.autocast or (method.rank and method.weights == _BFLOAT16):
        return _BFLOAT16
    return _FLOAT32


def _stream_width(method: Method) -> int:
    """Bytes of a number that goes from layer to layer: what the embeddings are in."""
    return method.weights if method.rank else _FLOAT32
