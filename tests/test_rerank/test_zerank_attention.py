"""Documents end to end after a shared prefix, against each document attended alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from rerank.inference.packed_attention import Packing, attend_rows, choose_varlen

HEADS, KV_HEADS, SIZE = 4, 2, 16


def by_itself(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, before: int
) -> torch.Tensor:
    """Softmax attention written out: query (heads, n, size) sees `before` keys and its own past."""
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    weights = query @ key.transpose(1, 2) * SIZE**-0.5
    seen = torch.arange(key.shape[1])[None, :] <= before + torch.arange(query.shape[1])[:, None]
    return weights.masked_fill(~seen, float("-inf")).softmax(-1) @ value


def kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    begin_q: torch.Tensor,
    begin_k: torch.Tensor,
    max_q: int,
    max_k: int,
    **options: Any,
) -> torch.Tensor:
    """The contract of a variable-length kernel, causal to the lower right."""
    assert options["window_size"] == (-1, 0)
    assert options["enable_gqa"]
    outputs = []
    for document in range(len(begin_q) - 1):
        own = slice(int(begin_q[document]), int(begin_q[document + 1]))
        seen = slice(int(begin_k[document]), int(begin_k[document + 1]))
        queries, keys = own.stop - own.start, seen.stop - seen.start
        assert queries <= max_q
        assert keys <= max_k
        parts = [q[own].transpose(0, 1), k[seen].transpose(0, 1), v[seen].transpose(0, 1)]
        outputs.append(by_itself(parts[0], parts[1], parts[2], keys - queries).transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("varlen", [None, kernel])
@pytest.mark.parametrize("before", [0, 1, 13])
@pytest.mark.parametrize("lengths", [[1], [7], [5, 17, 1, 9], [4, 4, 4]])
def test_each_document_sees_the_prefix_and_its_own_past_only(
    lengths: list[int], before: int, varlen: Any
) -> None:
    torch.manual_seed(len(lengths) + before)
    total = sum(lengths)
    q = torch.randn(total, HEADS, SIZE)
    k, v = torch.randn(2, total, KV_HEADS, SIZE)
    pk, pv = torch.randn(2, before, KV_HEADS, SIZE)
    packing = Packing(
        lengths, torch.device("cpu"), prefix={0: (pk, pv)} if before else {}, varlen=varlen
    )
    out = attend_rows(0, q, k, v, packing, scaling=SIZE**-0.5)
    assert out.shape == (total, HEADS, SIZE)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        expected = by_itself(
            q[own].transpose(0, 1),
            torch.cat([pk, k[own]]).transpose(0, 1),
            torch.cat([pv, v[own]]).transpose(0, 1),
            before,
        )
        assert torch.allclose(out[own].transpose(0, 1), expected, atol=1e-5)
        start += length


def test_positions_go_on_after_the_prefix_and_last_tokens_are_found() -> None:
    prefix = {0: (torch.zeros(3, 1, 2), torch.zeros(3, 1, 2))}
    packing = Packing([2, 1, 3], torch.device("cpu"), prefix=prefix)
    assert packing.positions.tolist() == [[3, 4, 3, 3, 4, 5]]
    assert packing.last.tolist() == [1, 2, 5]


def test_the_row_is_kept_when_asked_for() -> None:
    q, k = torch.randn(5, HEADS, SIZE), torch.randn(5, KV_HEADS, SIZE)
    packing = Packing([5], torch.device("cpu"), keep=True)
    attend_rows(0, q, k, k, packing)
    assert torch.equal(packing.kept[0][0], k)


def test_the_variable_length_kernel_is_for_gpus_only() -> None:
    assert choose_varlen(torch.device("cpu"), torch.bfloat16, HEADS, KV_HEADS, SIZE) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_variable_length_kernel_of_the_gpu_agrees_with_plain_attention() -> None:
    assert choose_varlen(torch.device("cuda"), torch.bfloat16, 32, 8, 128) is not None


def test_plain_attention_of_torch_is_the_reference_without_a_prefix() -> None:
    torch.manual_seed(0)
    q = torch.randn(6, HEADS, SIZE)
    out = attend_rows(0, q, q, q, Packing([6], torch.device("cpu")))
    lines = q.transpose(0, 1)
    expected = F.scaled_dot_product_attention(lines, lines, lines, is_causal=True)
    assert torch.allclose(out.transpose(0, 1), expected, atol=1e-6)
