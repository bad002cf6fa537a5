"""Which device and which number format a model runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rerank.errors import DeviceError
from rerank.inference import fp8

# A memory error never brings a budget below this.
LEAST_BUDGET = 256
_FORMATS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp8": fp8.DTYPE,
}


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: a GPU if there is one, else the CPU. Raises DeviceError when `name` is missing."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"There is no kind of device called {name!r}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"The device {name!r} is not there: no such GPU is visible.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"The device {name!r} is not there.")
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively (there it is twice as fast and keeps the
    order: Kendall tau >= .99 to float32), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """A number format by the name people use; "" and "auto" for what suits the device, "fp8" for
    torch.float8_e4m3fn.

    Raises DeviceError for what is none and where the device does not multiply 8-bit floats.
    """
    if name in {"", "auto"}:
        return choose_dtype(device)
    if name not in _FORMATS:
        raise DeviceError(
            f"There is no number format called {name!r}. Choose one of auto, {', '.join(_FORMATS)}."
        )
    if name == "fp8":
        fp8.require_device(device)
    return _FORMATS[name]


def _cpu_has_bfloat16() -> bool:
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def describe(device: torch.device) -> str:
    """For people: "NVIDIA H200" or "CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    return device.type


def is_memory_error(error: BaseException) -> bool:
    """Whether smaller batches might help."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def token_budget(device: torch.device) -> int:
    """Tokens per batch, padding included. On a CPU larger ones leave the caches and gain nothing,
    and a query waits for the batch in progress."""
    return 65_536 if device.type == "cuda" else 2_048


class TokenBudget:
    """Tokens of one batch. Running out of memory halves it, for later requests too."""

    def __init__(self, device: torch.device, tokens: int | None = None) -> None:
        self._device = device
        self.tokens = tokens or token_budget(device)

    @contextmanager
    def spending(self, tokens: int) -> Iterator[None]:
        """Around a batch of so many tokens; what is raised inside passes on."""
        try:
            yield
        except Exception as error:
            if is_memory_error(error):
                self.tokens = max(min(self.tokens, tokens) // 2, LEAST_BUDGET)
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
            raise
