"""Random zerank weights of any size in the layout published in May 2026, and texts to read.

Only for measuring: the scores mean nothing. The tokenizer is trained here on invented words, to
about as many bytes per token as Qwen's has on English; tokenising with it costs what Qwen's costs,
for both divide a text by the same expression and merge bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import Qwen3Config, Qwen3ForCausalLM

from rerank.inference.qwen_frame import QWEN_SPLIT
from tests.test_rerank.tiny_qwen import CONTROL, save_modules

# zerank-2 and zerank-1: Qwen3-4B.
FULL_SIZE = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
}
TINY_SIZE = {
    "vocab_size": 8_000,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
}
_WORDS = 6_000
_MERGED = 4_000


class Writer:
    """Texts of invented words, the word of rank r with probability proportional to 1 / r."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlcumwfgypbvk"))
        lengths = np.random.default_rng(0).integers(2, 9, _WORDS)
        chance = np.random.default_rng(1)
        self._words = np.array(["".join(chance.choice(letters, length)) for length in lengths])
        shares = 1.0 / np.arange(5, _WORDS + 5)
        self._shares = shares / shares.sum()

    def words(self, count: int) -> str:
        return " ".join(self._random.choice(self._words, count, p=self._shares))

    def bytes(self, count: int) -> str:
        return self.words(count // 2)[:count].strip()

    def tokens(self, count: int, tokenizer: Tokenizer) -> str:
        """A text of exactly so many tokens, from about ten on."""
        first, *others = self.words(count).split()
        words = [first, *(f" {word}" for word in others)]
        taken, left = "", count
        for word, found in zip(words, tokenizer.encode_batch(words), strict=True):
            # Words are divided before they are merged, so their tokens add up.
            if len(found.ids) <= left:
                taken, left = taken + word, left - len(found.ids)
        return taken.strip()


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    frame = "system user assistant Yes\n"
    trainer = BpeTrainer(
        vocab_size=_MERGED,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    writer = Writer(9)
    made.train_from_iterator([frame * 50, *[writer.words(500) for _ in range(200)]], trainer)
    made.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL]
    )
    return made


def save(
    folder: Path,
    size: Mapping[str, int],
    made: Tokenizer,
    device: torch.device,
    dtype: torch.dtype,
    spread: float = 0.02,
) -> Qwen3Config:
    """Writes the model into `folder` and returns its settings. The weights are drawn on `device`;
    `spread` is their standard deviation."""
    torch.manual_seed(7)
    config = Qwen3Config(
        **size,
        max_position_embeddings=40_960,
        initializer_range=spread,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        pad_token_id=made.token_to_id("<|endoftext|>"),
    )
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)
    save_modules(model.eval(), folder)
    made.save(str(folder / "tokenizer.json"))
    head = {"true_token_id": made.token_to_id("Yes"), "false_token_id": None}
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps(head))
    return config


def floor_flops(config: Qwen3Config, lengths: Sequence[int]) -> tuple[float, float]:
    """Floating-point operations to read prompts of so many tokens, each whole: those of the
    layers' matrices, and those of causal attention."""
    heads = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    matrices = config.hidden_size * (2 * heads + 2 * kv + 3 * config.intermediate_size)
    layers = config.num_hidden_layers
    seen = sum(length * (length + 1) / 2 for length in lengths)
    return 2.0 * layers * matrices * sum(lengths), 4.0 * layers * heads * seen
