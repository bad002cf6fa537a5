"""Matrix products in 8-bit floats: the arithmetic, what is refused, and a small decoder whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from rerank.errors import DeviceError, WrongModel
from rerank.inference import fp8
from rerank.inference.zerank import ZerankReranker
from rerank.inference.zerank_files import zerank_files
from rerank.types import FloatArray, RerankRequest

from .tiny_qwen import decoder, save_modules

CPU = torch.device("cpu")
HAS_FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= fp8.CAPABILITY
WORDS = [
    "apples",
    "cats",
    "dogs",
    "what",
    "is",
    "first",
    "boil",
    "then",
    "stir",
    "answer",
    "jam",
    "Yes",
    "No",
    "42",
    "fine",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The CPU's 8-bit products are slow in several threads that wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def requests(count: int, documents: int) -> list[RerankRequest]:
    chance = np.random.default_rng(5)

    def text(least: int, most: int) -> str:
        return " ".join(chance.choice(WORDS, chance.integers(least, most)))

    return [
        RerankRequest(text(2, 6), [text(1, 60) for _ in range(documents)]) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that rounding errors average out as they do in a real model."""
    model = decoder(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=512,
        initializer_range=0.08,
    )
    return save_modules(model, tmp_path_factory.mktemp("fp8"))


def load(folder: Path, dtype: torch.dtype, device: torch.device = CPU) -> ZerankReranker:
    files = zerank_files("tiny", folder)
    assert files is not None
    return ZerankReranker(files, device, dtype)


def all_logits(model: ZerankReranker, asked: list[RerankRequest]) -> FloatArray:
    return np.stack([model.score(request).logits for request in asked])


def mean_tau(first: FloatArray, second: FloatArray) -> float:
    """Kendall tau within each request, averaged."""
    return float(np.mean([kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]))


def test_rounded_numbers_are_within_a_sixteenth_and_each_row_uses_the_whole_range() -> None:
    x = matrix(30, 64, 1) * torch.logspace(-6, 6, 30)[:, None]
    rounded, scales = fp8.quantise_rows(x)
    assert rounded.dtype == torch.float8_e4m3fn
    assert scales.shape == (30, 1)
    # Three bits behind the point round to one part in sixteen; below 2^-6 of the scale the steps
    # are 2^-9.
    error = (rounded.float() * scales - x).abs()
    assert bool((error <= torch.maximum(x.abs() / 16, scales * 2**-10)).all())
    assert rounded.float().abs().amax(1).tolist() == [fp8.LARGEST] * 30


def test_a_row_of_zeros_stays_zero() -> None:
    rounded, scales = fp8.quantise_rows(torch.zeros(2, 16))
    assert torch.equal(rounded.float() * scales, torch.zeros(2, 16))


def test_what_is_no_number_is_not_hidden() -> None:
    weight, scales = fp8.quantise_weight(matrix(16, 16, 2))
    x = torch.ones(2, 16)
    x[1, 3] = float("nan")
    out = fp8.multiply(x, weight, scales, None)
    assert bool(torch.isfinite(out[0]).all())
    assert not bool(torch.isfinite(out[1]).any())


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_the_product_is_that_of_the_rounded_numbers(tokens: int) -> None:
    x, bias = matrix(tokens, 64, 3), matrix(1, 96, 4)[0]
    weight, scales = fp8.quantise_weight(matrix(96, 64, 5))
    expected = fp8.reference(x, weight, scales) + bias
    assert torch.allclose(fp8.multiply(x, weight, scales, bias), expected, atol=1e-4)
    exact = x @ matrix(96, 64, 5).t() + bias
    assert float((expected - exact).norm() / exact.norm()) < 0.05


def test_a_token_is_rounded_alone_whatever_stands_beside_it() -> None:
    weight, scales = fp8.quantise_weight(matrix(32, 64, 6))
    x = matrix(5, 64, 7)
    x[0] *= 1000
    together = fp8.multiply(x, weight, scales, None)
    alone = torch.cat([fp8.multiply(row[None], weight, scales, None) for row in x])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_matrices_laid_on_one_another_give_what_each_gives() -> None:
    first, second, x = matrix(32, 64, 8), matrix(16, 64, 9) * 100, matrix(5, 64, 10)
    merged = fp8.multiply(x, *fp8.quantise_weight(torch.cat([first, second])), None)
    apart = [fp8.multiply(x, *fp8.quantise_weight(each), None) for each in (first, second)]
    assert torch.allclose(merged, torch.cat(apart, 1), rtol=1e-6, atol=1e-6)


def test_layers_whose_sizes_the_hardware_does_not_take_are_refused() -> None:
    with pytest.raises(WrongModel, match="multiples of 16"):
        fp8.quantise_weight(torch.zeros(24, 64))


def test_a_device_without_8_bit_products_is_refused() -> None:
    with pytest.raises(DeviceError, match="Choose another number format"):
        fp8.require_device(CPU)


def test_the_check_of_the_arithmetic_passes_where_it_is_right() -> None:
    assert fp8.multiplies_rightly(CPU)


def test_a_decoder_in_8_bits_keeps_the_order_and_says_what_it_is(folder: Path) -> None:
    rough, exact = load(folder, fp8.DTYPE), load(folder, torch.bfloat16)
    asked = requests(3, 25)
    # Untrained decoders tell documents apart by little more than what rounding changes.
    assert mean_tau(all_logits(rough, asked), all_logits(exact, asked)) > 0.8
    assert rough.card.dtype == "fp8"
    assert "fp8" in rough.card.revision
    assert rough.card.revision != exact.card.revision


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_FP8, reason="no GPU that multiplies 8-bit floats")
def test_on_the_gpu_8_bits_keep_the_order_of_bfloat16(folder: Path) -> None:
    gpu = torch.device("cuda")
    fp8.require_device(gpu)
    asked = requests(20, 40)
    rough = all_logits(load(folder, fp8.DTYPE, gpu), asked)
    assert mean_tau(rough, all_logits(load(folder, fp8.DTYPE), asked)) > 0.95
    assert mean_tau(rough, all_logits(load(folder, torch.bfloat16, gpu), asked)) > 0.8
