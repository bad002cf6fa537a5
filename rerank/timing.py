"""How long a reranker takes for requests of a given shape. No torch of its own."""

from __future__ import annotations

import random
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rerank.inference.batching import plan_batches
from rerank.types import BatchReranker, Reranker, RerankRequest

# One token each for the tokenizers of English models.
_TEXT = """
the of and to in is that it was for on are as with his they at be this from have or by one
had not but what all were when we there can an your which their said if do will each about
how up out them then she many some so these would other into has more her two like him see
time could no make than first been its who now people my made over did down only way find
use may water long little very after words called just where most know
"""
_WORDS = _TEXT.split()
_QUERY = "which of these ways to find water was known first"
# Requests before the clock counts: caches fill, kernels are chosen.
_WARM_UP = 2
_TRIAL_WORDS = 100


@dataclass(frozen=True)
class Workload:
    """`candidates` documents of `shortest` to `longest` tokens, evenly spread, in mixed order."""

    candidates: int = 100
    shortest: int = 20
    longest: int = 300
    instruction: str | None = None


@dataclass(frozen=True)
class Timing:
    """Of one request: `tokens` the model read, `ms_*` from text to sorted scores, `batches` it
    takes alone and `batch_fill`, the share of them that would be no padding; None for models that
    do not say. Memory: of the whole process, and on the GPU, None without one."""

    model: str
    device: str
    dtype: str
    candidates: int
    requests: int
    tokens: int
    ms_p50: float
    ms_p95: float
    tokenize_ms_p50: float
    inference_ms_p50: float
    pairs_per_second: float
    tokens_per_second: float
    batches: int | None
    batch_fill: float | None
    peak_memory_mib: float
    peak_device_memory_mib: float | None


def time_requests(reranker: Reranker, workload: Workload, requests: int = 10) -> Timing:
    """`requests` different ones, one after the other. Raises what the reranker raises."""
    made = _requests(reranker, workload, requests + _WARM_UP)
    for request in made[:_WARM_UP]:
        reranker.score(request)
    elapsed, tokenize, inference, tokens = [], [], [], 0
    for request in made[_WARM_UP:]:
        started = time.perf_counter()
        scores = reranker.score(request)
        np.argsort(-scores.logits, kind="stable")
        elapsed.append(time.perf_counter() - started)
        tokenize.append(scores.tokenize_ms)
        inference.append(scores.inference_ms)
        tokens += scores.tokens
    batches, fill = _batches(reranker, made[-1])
    return Timing(
        model=reranker.card.name,
        device=reranker.card.device,
        dtype=reranker.card.dtype,
        candidates=workload.candidates,
        requests=requests,
        tokens=round(tokens / requests),
        ms_p50=_percentile(elapsed, 50) * 1000,
        ms_p95=_percentile(elapsed, 95) * 1000,
        tokenize_ms_p50=_percentile(tokenize, 50),
        inference_ms_p50=_percentile(inference, 50),
        pairs_per_second=workload.candidates * requests / sum(elapsed),
        tokens_per_second=tokens / sum(elapsed),
        batches=batches,
        batch_fill=fill,
        peak_memory_mib=peak_memory_mib(),
        peak_device_memory_mib=_peak_device_memory_mib(),
    )


def peak_memory_mib() -> float:
    """The most this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _requests(reranker: Reranker, workload: Workload, count: int) -> list[RerankRequest]:
    chance = random.Random(0)
    a_token = 1 / _tokens_of_a_word(reranker)
    lengths = np.linspace(workload.shortest, workload.longest, workload.candidates)
    made = []
    for _ in range(count):
        sizes = [max(1, round(length * a_token)) for length in lengths]
        chance.shuffle(sizes)
        documents = [" ".join(chance.choices(_WORDS, k=size)) for size in sizes]
        made.append(RerankRequest(_QUERY, documents, workload.instruction, [0.5] * len(documents)))
    return made


def _tokens_of_a_word(reranker: Reranker) -> float:
    """1 where the reranker does not count."""
    text = " ".join(random.Random(0).choices(_WORDS, k=2 * _TRIAL_WORDS))
    short = " ".join(text.split()[:_TRIAL_WORDS])
    counts = [reranker.score(RerankRequest(_QUERY, [each], None, [0.5])) for each in (short, text)]
    added = counts[1].tokens - counts[0].tokens
    return added / _TRIAL_WORDS if added > 0 and not counts[1].truncated else 1.0


def _batches(reranker: Reranker, request: RerankRequest) -> tuple[int | None, float | None]:
    if not hasattr(reranker, "prepare") or not hasattr(reranker, "budget"):
        return None, None
    model = cast(BatchReranker, reranker)
    lengths = model.prepare(request).lengths
    batches = list(plan_batches(lengths, model.budget))
    padded = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)
    return len(batches), sum(lengths) / padded if padded else 1.0


def _peak_device_memory_mib() -> float | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated()) / (1024 * 1024)


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))
