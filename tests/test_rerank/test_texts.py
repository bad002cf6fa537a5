"""How much of a long text is read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank.inference.models import directory_of
from rerank.inference.texts import FIRST_LOOK, LAST_LOOK, beginning_of, first_ids

from .tiny_qwen import tokenizer

WORDS = [
    "apples", "and", "don't", "Größe", "Привет", "مرحبا", "你好世界", "🙂", "42", "-", "\n",
    "\n\n  ", "supercalifragilistic", "!?", "e\u0301", "\u200b",
]  # fmt: skip


def encoder(made: Tokenizer) -> Callable[[Sequence[str]], list[list[int]]]:
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True

    def encode(texts: Sequence[str]) -> list[list[int]]:
        found = made.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in found]

    return encode


# WordPiece takes no longer word; what it drops from one does not end it.
ENDLESS = re.compile(r"[\w\u0301\u200b]{101}")
ENCODERS = {
    "WordPiece": encoder(Tokenizer.from_file(str(directory_of("") / "tokenizer.json"))),
    "byte pairs": encoder(tokenizer()),
}


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=list(ENCODERS))
@settings(max_examples=30)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12),
    between=st.sampled_from([" ", "", "\n"]),
    room=st.integers(1, 40),
)
def test_the_beginning_of_a_long_text_gives_the_ids_of_the_whole(
    encode: Callable[[Sequence[str]], list[list[int]]], words: list[str], between: str, room: int
) -> None:
    text = between.join(words) + between
    text *= 3 * room * FIRST_LOOK // len(text) + 1
    assume(not ENDLESS.search(text))
    (whole,) = encode([text])
    ((ids, cut),) = first_ids(encode, [text], room)
    assert ids == whole[:room]
    assert cut or len(whole) <= room


def test_short_and_long_texts_keep_their_places() -> None:
    encode = ENCODERS["WordPiece"]
    texts = ["apples", "pears " * 1000, "", "cats"]
    found = first_ids(encode, texts, 5)
    assert [ids for ids, _ in found] == [ids[:5] for ids in encode(texts)]
    assert [cut for _, cut in found] == [False, True, False, False]
    assert first_ids(encode, [], 5) == []


@pytest.mark.parametrize("unit", ["a", " ", "\n", "."])
def test_what_is_no_language_is_not_read_to_its_end(unit: str) -> None:
    read = 0

    def encode(part: str) -> list[int]:
        nonlocal read
        read += len(part)
        return ENCODERS["WordPiece"]([part])[0]

    started = time.perf_counter()
    part, _ = beginning_of(unit * 10_000_000, 100, encode)
    assert len(part) <= 100 * FIRST_LOOK * LAST_LOOK
    assert read <= 2 * 100 * FIRST_LOOK * LAST_LOOK
    assert time.perf_counter() - started < 10
