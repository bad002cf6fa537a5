"""One text with the prefix a model wants before it. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rerank.errors import BadInput, WrongModel
from rerank.inference.pair_frame import own_tokenizer
from rerank.inference.texts import first_ids


class TextFrame:
    """[CLS] prefix text [SEP], or whatever the tokenizer puts around a text.

    `prefix` may begin with special tokens; whatever the text holds is text. `max_tokens` holds for
    all together. Raises WrongModel where the tokenizer cannot be told apart from the text.
    """

    def __init__(self, name: str, tokenizer: Any, prefix: str, max_tokens: int) -> None:
        self._tokenizer = own_tokenizer(name, tokenizer)
        self._max_tokens = max_tokens
        one = self._tokenizer.encode("one")
        own = [place for place, owner in enumerate(one.sequence_ids) if owner == 0]
        if not own:
            raise WrongModel(
                f"The tokenizer of {name!r} finds no word in a text. Use the tokenizer.json "
                "published with the model."
            )
        control, self._prefix = _divided(prefix, tokenizer)
        self._head = [*one.ids[: own[0]], *control]
        self._tail = list(one.ids[own[-1] + 1 :])

    def whole(self, text: str) -> list[int]:
        """Raises BadInput for a text longer than the model reads."""
        ids, cut = self.cut([text])[0]
        if cut:
            raise BadInput(
                f"The query and its instruction are too long; the reranker reads {len(ids)} tokens "
                "of them at most. Shorten the instruction."
            )
        return ids

    def cut(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """The ids of each text, and whether its end had to be cut."""
        room = self._max_tokens - len(self._head) - len(self._tail)
        found = first_ids(self._encode, [self._prefix + text for text in texts], room)
        return [([*self._head, *ids, *self._tail], cut) for ids, cut in found]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in encoded]


def _divided(prefix: str, tokenizer: Any) -> tuple[list[int], str]:
    """The special tokens at the beginning of the prefix, and the text that follows them."""
    special = {t.content: int(i) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    names = sorted(filter(None, special), key=len, reverse=True)
    if not names:
        return [], prefix
    leading = re.match(f"(?:{'|'.join(map(re.escape, names))})*", prefix)
    assert leading is not None
    found = re.findall("|".join(map(re.escape, names)), leading.group())
    return [special[token] for token in found], prefix[leading.end() :]
