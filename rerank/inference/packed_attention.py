"""Attention over documents laid end to end, without padding, after a prefix they share.

Every linear layer of a decoder sees one row of real tokens only; `attend_rows` keeps the documents
apart. A prefix (frame, query, instruction) is read once; its keys and values serve all documents.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

IntArray = NDArray[np.int64]
KeysValues = tuple[torch.Tensor, torch.Tensor]
Varlen = Callable[..., Any]


@dataclass
class Packing:
    """How the one row of tokens divides into documents; every token sees the whole prefix and what
    stands before it in its own document.

    `lengths`: tokens of each document, in order. `prefix`: keys and values of the shared prefix by
    layer, each (prefix tokens, kv heads, head size); empty means none. `keep`: whether to fill
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
        return len(self.prefix[0][0]) if self.prefix else 0

    @functools.cached_property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(self.lengths)

    @functools.cached_property
    def _ends(self) -> IntArray:
        return np.cumsum(self.lengths, dtype=np.int64)

    @functools.cached_property
    def _starts(self) -> IntArray:
        starts: IntArray = self._ends - np.asarray(self.lengths)
        return starts

    @functools.cached_property
    def _within(self) -> IntArray:
        """Each token's place in its document, shape (tokens,)."""
        return np.arange(self._ends[-1]) - np.repeat(self._starts, self.lengths)

    @functools.cached_property
    def last(self) -> torch.Tensor:
        """The place of each document's last token, shape (documents,)."""
        return send(self._ends - 1, self.device)

    @functools.cached_property
    def positions(self) -> torch.Tensor:
        """Each token's position in its own prompt, shape (1, tokens)."""
        return send(self._within[None] + self.before, self.device)

    @functools.cached_property
    def square(self) -> torch.Tensor:
        """Places of the tokens, one document a line, shape (documents, longest). Lines are filled
        up at their end with other tokens, which no token of the line sees."""
        lines = self._starts[:, None] + np.arange(self.longest)[None, :]
        return send(np.minimum(lines, self._ends[:, None] - 1), self.device)

    @functools.cached_property
    def back(self) -> torch.Tensor:
        """For each token its place in the flattened `square`, shape (tokens,)."""
        line = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return send(line * self.longest + self._within, self.device)

    @functools.cached_property
    def mask(self) -> torch.Tensor:
        """Who sees whom in a line of `square`, shape (longest, prefix + longest)."""
        width = self.longest
        ones = torch.ones(width, self.before + width, dtype=torch.bool, device=self.device)
        return ones.tril(self.before)

    @functools.cached_property
    def offsets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where documents begin among the queries and among the keys, each (documents + 1,)."""
        queries = np.concatenate([[0], self._ends]).astype(np.int32)
        keys = queries + np.arange(len(queries), dtype=np.int32) * self.before
        return send(queries, self.device), send(keys, self.device)

    @functools.cached_property
    def key_places(self) -> torch.Tensor:
        """Places in (prefix, row) of the keys of all documents, each with the prefix before it."""
        prefix = np.arange(self.before)
        row = np.arange(self.before, self.before + self._ends[-1])
        parts = [part for own in np.split(row, self._ends[:-1]) for part in (prefix, own)]
        return send(np.concatenate(parts), self.device)

    def keep_rows(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copies, for the two may be parts of something larger."""
        self.kept[layer] = (key.clone(), value.clone())


def send(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """To the device, without waiting for what is under way there."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def attend_rows(
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scaling: float | None = None,
) -> torch.Tensor:
    """query (tokens, heads, head size); key and value (tokens, kv heads, head size).

    Returns (tokens, heads, head size). `scaling` None: one by the root of the head size.
    """
    if packing.keep:
        packing.keep_rows(layer, key, value)
    shared = packing.prefix.get(layer)
    inner = _by_varlen if packing.varlen is not None else _by_lines
    return inner(query, key, value, shared, packing, scaling)


def _by_lines(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: KeysValues | None,
    packing: Packing,
    scaling: float | None,
) -> torch.Tensor:
    """One call for all documents, filled up to the longest; batches hold like lengths."""
    q, k, v = (each[packing.square].transpose(1, 2) for each in (query, key, value))
    mask = None
    if shared is not None:
        k, v = (
            torch.cat([first.transpose(0, 1).expand(len(own), -1, -1, -1), own], dim=2)
            for first, own in zip(shared, (k, v), strict=True)
        )
        mask = packing.mask
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.is_cuda:
        # With a mask the GPU's kernels know no groups; what is left would write out all weights.
        k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
        grouped = False
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
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
            torch.cat([first, own])[packing.key_places]
            for first, own in zip(shared, (key, value), strict=True)
        )
    begin_q, begin_k = packing.offsets
    out: torch.Tensor = packing.varlen(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        begin_q,
        begin_k,
        packing.longest,
        packing.before + packing.longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
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
        varlen = _kernel()
        return varlen if _agrees(varlen, device, dtype, heads, kv_heads, size) else None
    except (ImportError, RuntimeError, TypeError, ValueError, NotImplementedError):
        return None


def _kernel() -> Varlen:
    from torch.nn.attention.varlen import varlen_attn

    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        return varlen_attn
    # Before torch 2.12 the kernel took grouped heads without being told.
    return lambda *arguments, enable_gqa, **options: varlen_attn(*arguments, **options)


def _agrees(
    varlen: Varlen, device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int
) -> bool:
    generator = torch.Generator(device="cpu").manual_seed(0)

    def random(count: int, tokens: int) -> torch.Tensor:
        return torch.randn(tokens, count, size, generator=generator).to(device, dtype)

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
