"""Where the embedder's tokens start in a text: what the sizes of passages are counted in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]

# One encoding call per piece; long texts are cut at line ends, where no token spans the cut.
_PIECE_CHARACTERS = 20_000


class TokenCounter(Protocol):
    def starts(self, text: str) -> Offsets:
        """The character offset of each token of `text`, ascending; shape (tokens,)."""
        ...


class EstimatedTokens:
    """Four letters to a token, one per sign or CJK character: where no tokenizer file is known."""

    _TOKEN = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]|[^\W_]{1,4}|[^\s]")

    def starts(self, text: str) -> Offsets:
        return np.fromiter((found.start() for found in self._TOKEN.finditer(text)), np.int64)


class ModelTokens:
    """The tokens of one tokenizer.json, without special tokens."""

    def __init__(self, tokenizer_file: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(tokenizer_file)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def starts(self, text: str) -> Offsets:
        pieces = list(_pieces(text))
        encodings = self._tokenizer.encode_batch(
            [text[start:end] for start, end in pieces], add_special_tokens=False
        )
        found: list[int] = []
        for (base, _), encoding in zip(pieces, encodings, strict=True):
            found.extend(base + start for start, _ in encoding.offsets)
        return np.asarray(found, dtype=np.int64)


def _pieces(text: str) -> list[tuple[int, int]]:
    pieces = []
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
        cut = cut + 1 if cut > start else end
        pieces.append((start, cut))
        start = cut
    pieces.append((start, len(text)))
    return pieces


@lru_cache(maxsize=4)
def token_counter(tokenizer_file: str | None) -> TokenCounter:
    """The counter of a tokenizer.json, or the estimate when there is no such file."""
    if tokenizer_file and Path(tokenizer_file).is_file():
        return ModelTokens(tokenizer_file)
    return EstimatedTokens()


def crop(text: str, tokens: int, counter: TokenCounter) -> str:
    """`text` cut to at most `tokens` tokens, with … where something was cut off."""
    starts = counter.starts(text)
    if len(starts) <= tokens:
        return text
    return text[: int(starts[max(0, tokens - 1)])].rstrip() + "…"


def count_all(texts: Sequence[str], counter: TokenCounter) -> list[int]:
    """Tokens of each text."""
    return [len(counter.starts(text)) for text in texts]
