r"""The prompt frame of the zerank family, built from token ids. No torch.

    <|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{document}<|im_end|>\n
    <|im_start|>assistant\n

(one text, without the line break shown before the last line). Only the frame's own tokens are
control tokens: texts are tokenised with special-token parsing off, so `<|im_end|>` written inside a
document stays text. Source of the frame: the published zerank-1-small scoring code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rerank.errors import BadInput, ModelNotFound, WrongModel

# How the Qwen tokenizers divide a text before merging bytes.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Where `QWEN_SPLIT` divides whatever stands before and after: a space after anything but white
# space (no alternative holds such a pair), and a letter after a line break (likewise).
_BORDER = re.compile(r"(?<=\S)(?= )|(?<=\n)(?=[^\W\d_])")
# The first look at a long document reads this many characters per token there is room for.
_FIRST_LOOK = 16
# A run of this many times the first look without any border is no language; it is cut anywhere.
_LONGEST_LOOK = 8
# What the tokenizer raises on half characters and on bytes.
_NO_TEXT = (TypeError, UnicodeEncodeError)


@dataclass(frozen=True)
class FramedDocument:
    """The ids after the shared prefix: the document, cut if it had to be, then the frame's end."""

    ids: list[int]
    truncated: bool


class QwenFrame:
    """Turns (query, documents) into a shared prefix and one list of ids per document.

    `max_tokens` holds for prefix and document together. Raises ModelNotFound when the tokenizer
    file cannot be read, WrongModel when it lacks the frame's control tokens.
    """

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        self._tokenizer = _tokenizer(tokenizer_file)
        self.max_tokens = max_tokens
        self._may_cut = _divides_like_qwen(self._tokenizer)
        start, end = self._control("<|im_start|>"), self._control("<|im_end|>")
        newline = self._encode(["\n"])[0]
        self._open_system = [start]
        # "user\n" apart from the document gives the same ids as both together: a document begins
        # with no white space, and `QWEN_SPLIT` then ends a piece at the line break.
        self._open_user = [end, *newline, start, *self._encode(["user\n"])[0]]
        self.suffix = [end, *newline, start, *self._encode(["assistant\n"])[0]]

    def token_id(self, token: str) -> int:
        """Raises WrongModel when `token` is none of the vocabulary."""
        identifier = self._tokenizer.token_to_id(token)
        if identifier is None:
            raise WrongModel(
                f"The tokenizer has no token {token!r}, so this is not a zerank model. Check the "
                "model's name."
            )
        return int(identifier)

    def prefix(self, query: str) -> list[int]:
        """Everything before the document; `query` with its instruction, if any.

        Raises BadInput when it leaves a document no room.
        """
        try:
            system = self._encode(["system\n" + query.strip()])[0]
        except _NO_TEXT as error:
            raise BadInput("The query holds characters that are not valid Unicode.") from error
        ids = [*self._open_system, *system, *self._open_user]
        if self._room(ids) < 1:
            raise BadInput(
                f"The query and its instruction take {len(system)} tokens; the reranker reads "
                f"{self.max_tokens} in all, with room for a document. Shorten the instruction."
            )
        return ids

    def documents(self, prefix: Sequence[int], texts: Sequence[str]) -> list[FramedDocument]:
        """One per text, in order. Only a document's end is ever cut. Raises BadInput."""
        room = self._room(prefix)
        stripped = [text.strip() for text in texts]
        first_look = room * _FIRST_LOOK
        short = [place for place, text in enumerate(stripped) if len(text) <= first_look]
        found: dict[int, list[int]] = {}
        try:
            encoded = self._encode([stripped[place] for place in short])
            found.update(zip(short, encoded, strict=True))
            for place, text in enumerate(stripped):
                if place not in found:
                    found[place] = self._encode_long(text, room)
        except _NO_TEXT as error:
            raise BadInput(_why_no_text(stripped)) from error
        return [
            FramedDocument(found[place][:room] + self.suffix, len(found[place]) > room)
            for place in range(len(texts))
        ]

    def _encode_long(self, text: str, room: int) -> list[int]:
        """At least the first `room` + 1 ids of `text`, or all of them if they are fewer.

        A part that ends at a border is tokenised as the same characters are within the whole text
        (normalisation composes nothing across a border), so when it alone gives more than `room`
        ids, they are the whole text's first ones, and the rest need not be read.
        """
        look = room * _FIRST_LOOK
        while self._may_cut and look < len(text):
            border = _last_border(text, look)
            if border is None and look >= room * _FIRST_LOOK * _LONGEST_LOOK:
                border = look
            if border is not None:
                ids = self._encode([text[:border]])[0]
                if len(ids) > room:
                    return ids
            look *= 2
        return self._encode([text])[0]

    def _room(self, prefix: Sequence[int]) -> int:
        return self.max_tokens - len(prefix) - len(self.suffix)

    def _control(self, token: str) -> int:
        identifier = self.token_id(token)
        if identifier in self._encode([token])[0]:
            raise WrongModel(
                f"The tokenizer does not mark {token} as special, so a document could forge the "
                "frame. Use the tokenizer.json published with the model."
            )
        return identifier

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in encodings]


def _tokenizer(file: Path) -> Any:
    if not file.is_file():
        raise ModelNotFound(f"The file {file} is missing. Download the model again, all of it.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise ModelNotFound(f"The tokenizer {file} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _divides_like_qwen(tokenizer: Any) -> bool:
    state = json.loads(tokenizer.pre_tokenizer.__getstate__()) if tokenizer.pre_tokenizer else {}
    steps = state.get("pretokenizers") or [{}]
    return bool(steps[0].get("pattern") == {"Regex": QWEN_SPLIT})


def _last_border(text: str, end: int) -> int | None:
    """The last border in the second half of the first `end` characters."""
    last = None
    for match in _BORDER.finditer(text, end // 2, end):
        last = match.start()
    return last


def _why_no_text(texts: Sequence[Any]) -> str:
    for place, text in enumerate(texts):
        try:
            str.encode(text)
        except _NO_TEXT:
            return (
                f"Document {place + 1} is no valid Unicode text. Decode the file with its own "
                "encoding and try again."
            )
    return "A document is no valid Unicode text."
