"""What a model takes of a GPU's memory; of this process's where there is no GPU."""

from __future__ import annotations

import gc
import time

import numpy as np
import psutil
import torch
from tokenizers import Tokenizer

from benches.random_zerank import Writer
from benches.report import Row
from rerank.inference.zerank import ZerankReranker
from rerank.types import RerankRequest


def peak_of(model: ZerankReranker, tokenizer: Tokenizer, device: torch.device, budget: int) -> Row:
    """The peak of one batch of about `budget` tokens, and its time when it runs again."""
    length = 512 if budget >= 2048 else 64
    writer = Writer(6)
    documents = [writer.tokens(length - 40, tokenizer) for _ in range(budget // length)]
    prepared = model.prepare(RerankRequest(writer.words(8), documents))
    rows = [(prepared, place) for place in range(len(documents))]
    _forget_peak(device)
    model.run(rows)
    synchronise(device)
    begun = time.perf_counter()
    model.run(rows)
    seconds = time.perf_counter() - begun
    return {
        "batch_tokens": sum(prepared.lengths),
        "peak_gb": held(device, peak=True),
        "ms": seconds * 1000,
        "tokens_per_second": sum(prepared.lengths) / seconds,
    }


def growth_of(model: ZerankReranker, device: torch.device, requests: int) -> Row:
    """What requests of one to four documents of changing lengths leave behind."""
    writer, chance = Writer(7), np.random.default_rng(7)
    texts = [writer.words(int(chance.integers(5, 60))) for _ in range(200)]

    def ask(count: int) -> None:
        for _ in range(count):
            picks = chance.integers(0, len(texts), int(chance.integers(1, 5)))
            model.score(RerankRequest(texts[picks[0]], [texts[pick] for pick in picks]))

    ask(requests // 10)
    before, host = held(device, reserved=True), psutil.Process().memory_info().rss
    begun = time.monotonic()
    ask(requests)
    return {
        "batch_tokens": f"growth over {requests:,} requests",
        "grown_mb_on_the_device": (held(device, reserved=True) - before) * 1000,
        "grown_mb_on_the_host": (psutil.Process().memory_info().rss - host) / 1e6,
        "ms_per_request": (time.monotonic() - begun) / requests * 1000,
    }


def held(device: torch.device, peak: bool = False, reserved: bool = False) -> float:
    """Gigabytes."""
    if device.type != "cuda":
        return psutil.Process().memory_info().rss / 1e9
    if peak:
        return torch.cuda.max_memory_allocated(device) / 1e9
    if reserved:
        return torch.cuda.memory_reserved(device) / 1e9
    return torch.cuda.memory_allocated(device) / 1e9


def clean(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
