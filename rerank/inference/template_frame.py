"""Query and document within a chat template, the way a generative reranker reads them. No torch.

The template is rendered once with marks in place of the texts and divided there and at its control
tokens. Only those become control tokens: whatever a query or a document holds is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rerank.errors import BadInput, WrongModel
from rerank.inference.pair_frame import (
    MIN_DOCUMENT_TOKENS,
    PROBES,
    Framed,
    ModelRow,
    own_tokenizer,
    too_long,
)
from rerank.inference.prompts import with_instruction
from rerank.inference.texts import FIRST_LOOK, beginning_of

Role = Literal["query", "document", "system", "instruction"]
# Letters of a private area: no template changes them and no tokenizer joins them to words.
_MARKS: Mapping[Role, str] = {
    "query": "\ue0a1query\ue0a2",
    "document": "\ue0a1document\ue0a2",
    "system": "\ue0a1system\ue0a2",
    "instruction": "\ue0a1instruction\ue0a2",
}
_MARK = re.compile("\ue0a1([a-z]+)\ue0a2")
# Roles in which templates take an instruction; the first is sentence-transformers' own.
_INSTRUCTION_ROLES: tuple[Role, ...] = ("system", "instruction")
# Settings of the call that do not reach the template.
_NOT_FOR_TEMPLATES = {
    "padding", "truncation", "max_length", "return_tensors", "restore_suffix", "tokenize",
}  # fmt: skip

# Fixed text, role, fixed text, role, ..., fixed text.
_Text = tuple[str, ...]
# A control token's id, or text.
_Piece = int | _Text


@dataclass(frozen=True)
class _Prompt:
    """`front`, then the text that holds the document (`before`, `after`), then `back`.
    `strips`: roles whose texts the template strips."""

    front: tuple[_Piece, ...]
    before: _Text
    after: _Text
    back: tuple[_Piece, ...]
    strips: frozenset[str]


class TemplateFrame:
    """Turns (query, instruction, documents) into token ids by the model's own chat template.

    `transformer` is the first module of a sentence-transformers CrossEncoder; `standing` the
    instruction the model's files name for requests without one. An instruction takes the place the
    template has for it; where there is none, it stands below the query. Raises WrongModel for a
    template that does not carry both texts or changes them.
    """

    def __init__(
        self, name: str, transformer: Any, max_tokens: int, standing: str | None = None
    ) -> None:
        self._name = name
        self._processor: Any = transformer.tokenizer
        self._structured = transformer.input_formatter.message_format == "structured"
        settings = transformer.processing_kwargs.get("chat_template") or {}
        self._settings = {k: v for k, v in settings.items() if k not in _NOT_FOR_TEMPLATES}
        self._max_tokens = max_tokens
        self._control = {
            token.content: int(number)
            for number, token in self._processor.added_tokens_decoder.items()
            if token.special or token.content.strip()
        }
        rendered = self._render({role: _MARKS[role] for role in ("query", "document")})
        used = [token for token in self._control if token in rendered]
        self._tokenizer = own_tokenizer(name, self._processor, used)
        self._plain = self._divided(("query", "document"))
        self._told_role, self._told = self._with_own_place()
        self._standing = standing if self._told else None
        self._compare(transformer)

    @property
    def has_place_for_instruction(self) -> bool:
        return self._told is not None

    def rows(self, query: str, instruction: str | None, documents: Sequence[str]) -> Framed:
        """Only documents are ever cut, and the template's end is kept. Raises BadInput when the
        other texts leave them no room."""
        told = (instruction or "").strip()
        if self._told is not None and (told or self._standing):
            prompt, told = self._told, told or str(self._standing)
            asked = query
        else:
            prompt, asked = self._plain, with_instruction(query, told)
            told = ""
        texts = {"query": asked, self._told_role: told}
        texts = {role: t.strip() if role in prompt.strips else t for role, t in texts.items()}
        if "document" in prompt.strips:
            documents = [document.strip() for document in documents]
        rows, truncated = self._rows(prompt, texts, documents)
        return Framed(rows, truncated, f"{asked}\0{told}" if told else asked)

    def _rows(
        self, prompt: _Prompt, texts: Mapping[str, str], documents: Sequence[str]
    ) -> tuple[list[ModelRow], int]:
        front, back = self._ids(prompt.front, texts), self._ids(prompt.back, texts)
        before, after = _filled(prompt.before, texts), _filled(prompt.after, texts)
        opening, closing = self._encode([before, after])
        limit = self._max_tokens - len(front) - len(back)
        room = limit - len(opening) - len(closing)
        if room < MIN_DOCUMENT_TOKENS:
            own = sum(map(len, self._encode(list(texts.values()))))
            raise BadInput(too_long(own, max(0, own + room - MIN_DOCUMENT_TOKENS)))

        def opened(part: str) -> list[int]:
            return self._encode([before + part])[0]

        fits = [len(document) <= room * FIRST_LOOK for document in documents]
        whole = iter(
            self._encode(
                [
                    before + document + after
                    for document, fit in zip(documents, fits, strict=True)
                    if fit
                ]
            )
        )
        rows, truncated = [], 0
        for document, fit in zip(documents, fits, strict=True):
            ids = next(whole) if fit else []
            if not fit or len(ids) > limit:
                part, ids = beginning_of(document, limit - len(closing), opened)
                if len(part) == len(document) and len(ids) <= limit - len(closing):
                    ids = self._encode([before + document + after])[0]
                else:
                    ids = ids[: limit - len(closing)] + closing
                    truncated += 1
            rows.append(ModelRow([*front, *ids, *back], []))
        return rows, truncated

    def _ids(self, pieces: Sequence[_Piece], texts: Mapping[str, str]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            ids += [piece] if isinstance(piece, int) else self._encode([_filled(piece, texts)])[0]
        return ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in encoded]

    def _with_own_place(self) -> tuple[str, _Prompt | None]:
        """The role in which the template takes an instruction, and the prompt that holds it."""
        for role in _INSTRUCTION_ROLES:
            try:
                return role, self._divided((role, "query", "document"))
            except WrongModel:
                continue
        return "", None

    def _divided(self, roles: Sequence[Role]) -> _Prompt:
        """The template rendered with marks for the texts of `roles`, in pieces."""
        marks: dict[Role, str] = {role: _MARKS[role] for role in roles}
        rendered = self._render(marks)
        if rendered.count(_MARKS["document"]) != 1 or not all(
            mark in rendered for mark in marks.values()
        ):
            raise self._unfit("does not hold the query, and once the document")
        strips = set()
        for role, mark in marks.items():
            padded = self._render({**marks, role: f" {mark} "})
            if padded == rendered:
                strips.add(str(role))
            elif padded != rendered.replace(mark, f" {mark} "):
                raise self._unfit(f"changes the text of the {role}")
        pieces = self._pieces(rendered)
        place = next(i for i, piece in enumerate(pieces) if _holds_document(piece))
        text = pieces[place]
        assert not isinstance(text, int)
        cut = 2 * text[1::2].index("document") + 1
        return _Prompt(
            front=tuple(pieces[:place]),
            before=text[:cut],
            after=text[cut + 1 :],
            back=tuple(pieces[place + 1 :]),
            strips=frozenset(strips),
        )

    def _pieces(self, rendered: str) -> list[_Piece]:
        tokens = sorted(self._control, key=len, reverse=True)
        border = f"({'|'.join(map(re.escape, tokens))})"
        pieces: list[_Piece] = []
        for place, part in enumerate(re.split(border, rendered) if tokens else [rendered]):
            if place % 2:
                pieces.append(self._control[part])
            elif part:
                pieces.append(tuple(_MARK.split(part)))
        return pieces

    def _render(self, texts: Mapping[Role, str]) -> str:
        messages = [
            {
                "role": role,
                "content": [{"type": "text", "text": text}] if self._structured else text,
            }
            for role, text in texts.items()
        ]
        try:
            return str(
                self._processor.apply_chat_template(messages, tokenize=False, **self._settings)
            )
        except Exception as error:  # a template may raise anything on roles it does not know
            raise self._unfit(f"fails: {error}") from error

    def _compare(self, transformer: Any) -> None:
        """Raises WrongModel where dividing the template gives other ids than reading it whole."""
        for query, document in PROBES:
            try:
                read = transformer.preprocess([(query, document)], prompt=self._standing)
            except ValueError as error:
                raise self._unfit(f"fails: {error}") from error
            expected = read["input_ids"][0].tolist()
            if self.rows(query, None, [document]).rows[0].ids != expected:
                raise self._unfit("cannot be divided at the texts without changing its tokens")

    def _unfit(self, why: str) -> WrongModel:
        return WrongModel(
            f"The chat template of {self._name!r} {why}. Use the chat_template.jinja published "
            "with a reranker."
        )


def _filled(text: _Text, texts: Mapping[str, str]) -> str:
    return "".join(texts[part] if place % 2 else part for place, part in enumerate(text))


def _holds_document(piece: _Piece) -> bool:
    return not isinstance(piece, int) and "document" in piece[1::2]
