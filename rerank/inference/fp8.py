"""Matrix products in 8-bit floats (e4m3), for GPUs of the Ada and Hopper generations and later.

Weights are rounded once, each output channel to a scale of its own; activations at every product,
each token to its own. A score so depends on its own document alone, and matrices laid one above the
other give what each gives by itself. Sums are kept in higher precision by the hardware.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.nn.functional import ScalingType

from rerank.errors import DeviceError, WrongModel

DTYPE = torch.float8_e4m3fn
# What is not multiplied in 8 bits: embeddings, norms, attention.
COMPUTE = torch.bfloat16
# The largest e4m3 number.
LARGEST = 448.0
# A row of zeros has this scale instead of none.
LEAST_SCALE = 1e-12
# First compute capability with e4m3 products.
CAPABILITY = (8, 9)


def require_device(device: torch.device) -> None:
    """Raises DeviceError where 8-bit floats are not multiplied in hardware, or wrongly."""
    if device.type != "cuda":
        raise DeviceError(
            "fp8 needs an NVIDIA GPU of the Ada or Hopper generation or later; this model is to "
            f"run on the device {device.type!r}. Choose another number format, for example auto."
        )
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        raise DeviceError(
            f"The GPU {torch.cuda.get_device_name(device)} does not multiply 8-bit floats; that "
            "needs the Ada or Hopper generation or later. Choose another number format, for "
            "example auto."
        )
    if not multiplies_rightly(device):
        raise DeviceError(
            f"Products of 8-bit floats come out wrong on {torch.cuda.get_device_name(device)} with "
            f"torch {torch.__version__}. Choose another number format, for example auto."
        )


def multiplies_rightly(device: torch.device) -> bool:
    """Whether a product of random numbers is what the rounded numbers give in float32."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.randn(40, 256, generator=generator).to(device, COMPUTE)
    weight = torch.randn(96, 256, generator=generator).to(device)
    rounded, scales = quantise_rows(weight)
    try:
        got = multiply(x, rounded, scales.t(), None)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    expected = reference(x, rounded, scales.t())
    # bfloat16 keeps 8 bits of each sum.
    return bool(torch.allclose(got.float(), expected, rtol=0.02, atol=0.1))


def quantise_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, in) -> the same in e4m3, and the scale of each output channel, float32, (1, out).

    Raises WrongModel for shapes the hardware does not take.
    """
    if any(size % 16 for size in weight.shape):
        raise WrongModel(
            f"fp8 needs layers whose sizes are multiples of 16; this model has one of "
            f"{weight.shape[0]} x {weight.shape[1]}. Choose another number format, for example "
            "auto."
        )
    rounded, scales = quantise_rows(weight)
    return rounded, scales.t().contiguous()


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, n) -> the same in e4m3, and the scale of each row, float32, (rows, 1)."""
    largest = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True, dtype=torch.float32)
    scales = (largest / LARGEST).clamp_min(LEAST_SCALE)
    # A quotient that rounding carried past the largest number by a hair is cast back to it.
    return (x / scales).to(DTYPE), scales


def multiply(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """x (tokens, in) times an e4m3 weight (out, in) with its `scales` (1, out) -> (tokens, out)."""
    rounded, own = quantise_rows(x)
    out = F.scaled_mm(
        rounded,
        weight.t(),
        own,
        ScalingType.RowWise,
        scales,
        ScalingType.RowWise,
        output_dtype=x.dtype,
        use_fast_accum=x.is_cuda,
    )
    return out if bias is None else out + bias


def reference(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """What `multiply` should give, in float32 arithmetic."""
    rounded, own = quantise_rows(x)
    return (rounded.float() * own) @ (weight.float() * scales.t()).t()
