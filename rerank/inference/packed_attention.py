"""Attention over documents laid end to end, without padding, after a prefix they share.

Registered with transformers as the attention `podium_packed`, so the models stay transformers' own:
every linear layer sees one row of real tokens only, and this function keeps the documents apart. A
prefix (frame, query, instruction) is read once; its keys and values serve all documents.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "podium_packed"

KeysValues = tuple[torch.Tensor, torch.Tensor]
Varlen = Callable[..., Any]


@dataclass
class Packing:
    """How the one row of tokens divides into documents; every token sees the whole prefix and what
    stands before it in its own document.

    `lengths`: tokens of each document, in order. `prefix`: keys and values of the shared prefix by
    layer, each (1, kv heads, prefix tokens, head size); empty means none. `keep`: whether to fill
    `kept`, the same for this row's own tokens. `varlen`: a variable-length kernel, or None for
    plain scaled-dot-product attention.
    """

    lengths: Sequence[int]
    device: torch.device
    prefix: dict[int, KeysValues] = field(default_factory=dict)
    keep: bool = False
    kept: dict[int, KeysValues] = field(default_factory=dict)
    varlen: Varlen | None = None

    @functools.cached_property
    def before(self) -> int:
        """Tokens of the prefix."""
        return int(self.prefix[0][0].shape[2]) if self.prefix else 0

    @functools.cached_property
    def last(self) -> torch.Tensor:
        """The place of each document's last token, shape (documents,)."""
        return torch.tensor(self.lengths).cumsum(0).to(self.device) - 1

    @functools.cached_property
    def positions(self) -> torch.Tensor:
        """Each token's position in its own prompt, shape (1, tokens)."""
        parts = [torch.arange(self.before, self.before + length) for length in self.lengths]
        return torch.cat(parts)[None].to(self.device)

    @functools.cached_property
    def square(self) -> torch.Tensor:
        """Places of the tokens, one document a line, shape (documents, longest). Lines are filled
        up at their end with other tokens, which no token of the line sees."""
        ends = torch.tensor(self.lengths).cumsum(0)[:, None]
        starts = ends - torch.tensor(self.lengths)[:, None]
        lines = starts + torch.arange(max(self.lengths))[None, :]
        return torch.minimum(lines, ends - 1).to(self.device)

    @functools.cached_property
    def back(self) -> torch.Tensor:
        """For each token its place in the flattened `square`, shape (tokens,)."""
        width = max(self.lengths)
        parts = [line * width + torch.arange(n) for line, n in enumerate(self.lengths)]
        return torch.cat(parts).to(self.device)

    @functools.cached_property
    def mask(self) -> torch.Tensor:
        """Who sees whom in a line of `square`, shape (longest, prefix + longest)."""
        width = max(self.lengths)
        ones = torch.ones(width, self.before + width, dtype=torch.bool, device=self.device)
        return ones.tril(self.before)

    @functools.cached_property
    def offsets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where documents begin among the queries and among the keys, each (documents + 1,)."""
        queries = [0, *itertools.accumulate(self.lengths)]
        keys = [0, *itertools.accumulate(self.before + length for length in self.lengths)]
        return (
            torch.tensor(queries, dtype=torch.int32, device=self.device),
            torch.tensor(keys, dtype=torch.int32, device=self.device),
        )

    @functools.cached_property
    def key_places(self) -> torch.Tensor:
        """Places in (prefix, row) of the keys of all documents, each with the prefix before it."""
        prefix = torch.arange(self.before)
        parts, start = [], self.before
        for length in self.lengths:
            parts += [prefix, torch.arange(start, start + length)]
            start += length
        return torch.cat(parts).to(self.device)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, heads, tokens, head size); key and value (1, kv heads, tokens, head size).

    Returns (1, tokens, heads, head size), as transformers expects of an attention function.
    """
    if packing is None:
        raise ValueError("The attention podium_packed needs the argument `packing`.")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if packing.keep:
        packing.kept[layer] = (key, value)
    shared = packing.prefix.get(layer)
    inner = _by_varlen if packing.varlen is not None else _by_lines
    return inner(query, key, value, shared, packing, scaling)[None], None


def _by_lines(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: KeysValues | None,
    packing: Packing,
    scaling: float | None,
) -> torch.Tensor:
    """One call for all documents, filled up to the longest; batches hold like lengths."""
    places = packing.square
    q, k, v = (each[0][:, places].transpose(0, 1) for each in (query, key, value))
    mask = None
    if shared is not None:
        k, v = (
            torch.cat([first.expand(len(places), -1, -1, -1), own], dim=2)
            for first, own in zip(shared, (k, v), strict=True)
        )
        mask = packing.mask
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1)[packing.back]


def _by_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: KeysValues | None,
    packing: Packing,
    scaling: float | None,
) -> torch.Tensor:
    """By a kernel that knows where each document begins; nothing is filled up."""
    assert packing.varlen is not None
    if shared is not None:
        key, value = (
            torch.cat([first, own], dim=2)[:, :, packing.key_places]
            for first, own in zip(shared, (key, value), strict=True)
        )
    q, k, v = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
    begin_q, begin_k = packing.offsets
    longest = max(packing.lengths)
    out: torch.Tensor = packing.varlen(
        q,
        k,
        v,
        begin_q,
        begin_k,
        longest,
        packing.before + longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out


def choose_varlen(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int
) -> Varlen | None:
    """torch's variable-length kernel where it exists for the device and, tried on random numbers
    of this shape, gives what plain attention gives; else None."""
    if device.type != "cuda" or dtype not in {torch.bfloat16, torch.float16}:
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn if _agrees(varlen_attn, device, dtype, heads, kv_heads, size) else None
    except (ImportError, RuntimeError, TypeError, ValueError, NotImplementedError):
        return None


def _agrees(
    varlen: Varlen, device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int
) -> bool:
    generator = torch.Generator(device="cpu").manual_seed(0)

    def random(count: int, tokens: int) -> torch.Tensor:
        return torch.randn(1, count, tokens, size, generator=generator).to(device, dtype)

    prefix = {0: (random(kv_heads, 7), random(kv_heads, 7))}
    lengths = [5, 1, 19]
    q, k, v = random(heads, 25), random(kv_heads, 25), random(kv_heads, 25)
    for before in (prefix, {}):
        packing = Packing(lengths, device, prefix=before, varlen=varlen)
        got = _by_varlen(q, k, v, before.get(0), packing, size**-0.5)
        expected = _by_lines(q, k, v, before.get(0), packing, size**-0.5)
        if not torch.allclose(got.float(), expected.float(), atol=0.03):
            return False
    return True


def _no_mask(*_: Any, **__: Any) -> None:
    """The packing says who sees whom; no mask is ever built."""


def register() -> str:
    """Makes the attention known to transformers and returns its name. Safe to call twice."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
    return NAME
