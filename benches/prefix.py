"""What sharing the prefix saves: the same tiny zerank model with and without it.

    python -m benches.prefix

Random weights (only the time counts), one query with an instruction of about 400 tokens, 50
documents of 30 to 120 words, tokenising included. Prints milliseconds per request, the ratio, and
the largest difference between the scores.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rerank.inference.zerank import ZerankReranker
from rerank.inference.zerank_files import zerank_files
from rerank.types import RerankRequest
from tests.test_rerank.tiny_qwen import decoder, save_modules

WORDS = ["apples", "cats", "dogs", "what", "is", "first", "boil", "then", "stir", "answer", "jam"]


def request(instruction_words: int, documents: int, seed: int) -> RerankRequest:
    chance = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words))

    return RerankRequest(
        "what is the first step in making apple jam",
        [text(chance.randint(30, 120)) for _ in range(documents)],
        text(instruction_words) or None,
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=320, help="words of the instruction")
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = measure(options.words, options.documents, options.rounds)
    sys.stdout.write(
        f"tokens read: {found['tokens_shared']} shared, {found['tokens_apart']} apart\n"
        f"ms per request (median of {options.rounds}): {found['ms_shared']:.0f} shared, "
        f"{found['ms_apart']:.0f} apart\n"
        f"ratio {found['ratio']:.2f}, largest difference of the logits "
        f"{found['largest_difference']:.1e}\n"
    )


def measure(words: int = 320, documents: int = 50, rounds: int = 5) -> dict[str, float]:
    """Medians of interleaved rounds, with and without sharing."""
    asked = request(words, documents, 7)
    model = decoder(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=768,
        max_position_embeddings=4096,
        initializer_range=0.05,
    )
    with tempfile.TemporaryDirectory() as folder:
        files = zerank_files("tiny", save_modules(model, Path(folder)))
        if files is None:
            raise SystemExit("The tiny model was not recognised.")
        device = torch.device("cpu")
        ways = {
            share: ZerankReranker(files, device, torch.float32, share_prefix=share)
            for share in (True, False)
        }
        scores = {share: way.score(asked) for share, way in ways.items()}
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds):
            for share, way in ways.items():
                started = time.perf_counter()
                way.score(asked)
                times[share].append((time.perf_counter() - started) * 1000)
    shared, apart = (statistics.median(times[share]) for share in (True, False))
    return {
        "tokens_shared": scores[True].tokens,
        "tokens_apart": scores[False].tokens,
        "ms_shared": shared,
        "ms_apart": apart,
        "ratio": apart / shared,
        "largest_difference": float(np.abs(scores[True].logits - scores[False].logits).max()),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
