"""A Qwen3 decoder over documents laid end to end, from transformers' weights.

The same arithmetic as transformers' own forward pass in fewer and larger steps: query, key and
value in one matrix product, gate and up in another, one kernel per norm, and in the last layer only
what the last token of each document needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from rerank.inference import fp8
from rerank.inference.packed_attention import Packing, attend_rows
from rerank.inference.rounded_rows import linear as linear_of


class Linear(NamedTuple):
    """`weight` (out, in); `scales` (1, out) where it is in 8-bit floats."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scales: torch.Tensor | None


class Layer(NamedTuple):
    """The weights of one decoder layer; `qkv` and `gate_up` are matrices laid on one another."""

    norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    out: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class Shape(NamedTuple):
    heads: int
    kv_heads: int
    size: int
    epsilon: float


class QwenDecoder:
    """Takes the layers out of `model` (a transformers Qwen3Model on its device), which is of no use
    afterwards: two copies of the weights would not fit.

    `use_fp8`: the layers' matrices in 8-bit floats; raises WrongModel where their sizes forbid it.
    `compiled`: what stands between the attentions as torch.compile fuses it; the first batch then
    takes a minute.
    """

    def __init__(self, model: Any, use_fp8: bool = False, compiled: bool = False) -> None:
        config = model.config
        self.shape = Shape(
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.rms_norm_eps,
        )
        self.dtype: torch.dtype = model.embed_tokens.weight.dtype
        self._embeddings: torch.Tensor = model.embed_tokens.weight.detach()
        self._rotary: Any = model.rotary_emb
        self._norm: torch.Tensor = model.norm.weight.detach()
        self._activation: Any = model.layers[0].mlp.act_fn
        self._layers = []
        while len(model.layers):
            self._layers.append(_layer(model.layers.pop(0), use_fp8))
        self._compiled = compiled
        self._before: Callable[..., Any] = torch.compile(before) if compiled else before
        self._after: Callable[..., Any] = torch.compile(after) if compiled else after

    def read(self, ids: torch.Tensor, packing: Packing) -> torch.Tensor | None:
        """ids (tokens,) -> hidden states of each document's last token after the last norm, shape
        (documents, hidden size); None when the packing asks for keys and values only."""
        x = F.embedding(ids, self._embeddings)
        cos, sin = self._rotary(x[None], packing.positions)
        half = self.shape.size // 2
        cos, sin = cos[0, :, None, :half], sin[0, :, None, :half]
        for number, layer in enumerate(self._layers):
            q, k, v = self._before(layer, self._fluid(x), *map(self._fluid, (cos, sin)), self.shape)
            if number < len(self._layers) - 1:
                attended = attend_rows(number, q, k, v, packing)
            elif packing.keep:
                packing.keep_rows(number, k, v)
                return None
            else:
                attended = attend_rows(number, q, k, v, packing)[packing.last]
                x = x[packing.last]
            x = self._after(
                layer, self._fluid(x), self._fluid(attended), self._activation, self.shape
            )
        return F.rms_norm(x, self._norm.shape, self._norm, self.shape.epsilon)

    def _fluid(self, x: torch.Tensor) -> torch.Tensor:
        """Tells the compiler that the number of tokens varies."""
        if self._compiled:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        return x


def before(
    layer: Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (tokens, hidden size) -> query (tokens, heads, size), key and value (tokens, kv heads,
    size), positions turned in."""
    rows = multiply(F.rms_norm(x, layer.norm.shape, layer.norm, shape.epsilon), layer.qkv)
    each = [shape.heads, shape.kv_heads, shape.kv_heads]
    parts = torch.split_with_sizes(rows.view(len(x), -1, shape.size), each, 1)
    q = F.rms_norm(parts[0], layer.q_norm.shape, layer.q_norm, shape.epsilon)
    k = F.rms_norm(parts[1], layer.k_norm.shape, layer.k_norm, shape.epsilon)
    return rotate(q, cos, sin), rotate(k, cos, sin), parts[2]


def after(
    layer: Layer,
    x: torch.Tensor,
    attended: torch.Tensor,
    activation: Callable[[torch.Tensor], torch.Tensor],
    shape: Shape,
) -> torch.Tensor:
    """x (tokens, hidden size), attended (tokens, heads, size) -> the layer's output."""
    x = x + multiply(attended.flatten(1), layer.out)
    rows = F.rms_norm(x, layer.mlp_norm.shape, layer.mlp_norm, shape.epsilon)
    gate, up = multiply(rows, layer.gate_up).chunk(2, -1)
    return x + multiply(activation(gate) * up, layer.down)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x (tokens, heads, size); cos and sin (tokens, 1, size / 2): each number of the first half
    turns with its fellow of the second."""
    first, second = x.chunk(2, -1)
    turned = (
        torch.addcmul(first * cos, second, sin, value=-1),
        torch.addcmul(second * cos, first, sin),
    )
    return torch.cat(turned, -1)


def multiply(x: torch.Tensor, linear: Linear) -> torch.Tensor:
    """x (tokens, in) -> (tokens, out)."""
    if linear.scales is not None:
        return fp8.multiply(x, linear.weight, linear.scales, linear.bias)
    return linear_of(x, linear.weight, linear.bias)


def _layer(layer: Any, use_fp8: bool) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm=layer.input_layernorm.weight.detach(),
        qkv=_merged([attention.q_proj, attention.k_proj, attention.v_proj], use_fp8),
        q_norm=attention.q_norm.weight.detach(),
        k_norm=attention.k_norm.weight.detach(),
        out=_merged([attention.o_proj], use_fp8),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=_merged([mlp.gate_proj, mlp.up_proj], use_fp8),
        down=_merged([mlp.down_proj], use_fp8),
    )


def _merged(modules: Sequence[Any], use_fp8: bool) -> Linear:
    """One matrix whose output is the modules' outputs side by side."""
    weights = [module.weight.detach() for module in modules]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    bias = torch.cat(biases) if biases else None
    if not use_fp8:
        return Linear(weight, bias, None)
    rounded, scales = fp8.quantise_weight(weight)
    return Linear(rounded, bias, scales)
