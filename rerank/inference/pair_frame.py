"""Query and document as a pair, the way a BERT-type cross-encoder reads them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from rerank.errors import BadInput, WrongModel
from rerank.inference.texts import first_ids

# The document keeps at least this many tokens, or the query is too long to be scored.
MIN_DOCUMENT_TOKENS = 32


# Pairs by which a frame is compared with the library's own reading.
PROBES = [
    ("what is 2+2?", "The answer is 4.\n\nIt's fine"),
    ("Schöne Grüße", "你好，世界。 Привет!  two  blanks"),
    ("a", ""),
]


class ModelRow(NamedTuple):
    """What the model reads of one pair; `types` (0 query, 1 document) is empty for models that take
    none."""

    ids: list[int]
    types: list[int]


class Framed(NamedTuple):
    """`truncated`: documents that were cut to fit. `prompt`: what stands around them as the model
    reads it, for cache keys."""

    rows: list[ModelRow]
    truncated: int
    prompt: str


class PairFrame:
    """[CLS] query [SEP] document [SEP], or whatever the tokenizer puts around a pair.

    `tokenizer` is transformers'; this keeps a copy that no other thread changes, in which "[SEP]"
    within a text stays text. Raises WrongModel where the tokenizer mixes the two texts.
    """

    def __init__(self, name: str, tokenizer: Any, max_tokens: int) -> None:
        self._name = name
        self._tokenizer = own_tokenizer(name, tokenizer)
        self._max_tokens = max_tokens
        self._takes_types = "token_type_ids" in tokenizer.model_input_names
        self._head, self._middle, self._tail = self._learn(name)

    def rows(self, query: str, documents: Sequence[str]) -> Framed:
        """Only documents are ever cut. Raises BadInput when the query leaves them no room."""
        asked = self._encode([query])[0]
        fixed = len(self._head.ids) + len(self._middle.ids) + len(self._tail.ids)
        room = self._max_tokens - fixed - len(asked)
        if room < MIN_DOCUMENT_TOKENS:
            raise BadInput(too_long(len(asked), self._max_tokens - fixed - MIN_DOCUMENT_TOKENS))
        found = first_ids(self._encode, documents, room)
        rows = [self._row(asked, ids) for ids, _ in found]
        return Framed(rows, sum(cut for _, cut in found), query)

    def compare(self, transformer: Any) -> None:
        """Raises WrongModel where `transformer`, the first module of a sentence-transformers
        CrossEncoder, reads other ids in the same texts."""
        for query, document in PROBES:
            read = transformer.preprocess([(query, document)])
            types = read["token_type_ids"][0].tolist() if "token_type_ids" in read else []
            if self.rows(query, [document]).rows[0] != (read["input_ids"][0].tolist(), types):
                raise WrongModel(
                    f"The tokenizer of {self._name!r} does more than its tokenizer.json says. Save "
                    "it with a current version of transformers."
                )

    def _row(self, query: list[int], document: list[int]) -> ModelRow:
        parts = [
            self._head,
            ModelRow(query, [self._query_type] * len(query)),
            self._middle,
            ModelRow(document, [self._document_type] * len(document)),
            self._tail,
        ]
        types = [kind for part in parts for kind in part.types] if self._takes_types else []
        return ModelRow([token for part in parts for token in part.ids], types)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in encoded]

    def _learn(self, name: str) -> tuple[ModelRow, ModelRow, ModelRow]:
        """What the tokenizer puts before, between and after the texts of a pair."""
        pair = self._tokenizer.encode("one", "two")
        owners = list(pair.sequence_ids)
        query = [place for place, owner in enumerate(owners) if owner == 0]
        document = [place for place, owner in enumerate(owners) if owner == 1]
        if not query or not document or query[-1] > document[0]:
            raise WrongModel(
                f"The tokenizer of {name!r} does not put the query before the document. Use the "
                "tokenizer.json published with the model."
            )
        self._query_type = pair.type_ids[query[0]]
        self._document_type = pair.type_ids[document[0]]

        def part(start: int, end: int) -> ModelRow:
            return ModelRow(list(pair.ids[start:end]), list(pair.type_ids[start:end]))

        return (
            part(0, query[0]),
            part(query[-1] + 1, document[0]),
            part(document[-1] + 1, len(owners)),
        )


def own_tokenizer(name: str, tokenizer: Any, control: Sequence[str] = ()) -> Any:
    """A copy of transformers' tokenizer that cuts and pads nothing and reads no special token, nor
    any of `control`, in texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise WrongModel(
            f"The model {name!r} has no tokenizer.json, which alone can be read safely by several "
            "threads. Save its tokenizer with a current version of transformers."
        )
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    if control:
        known = copy.get_added_tokens_decoder().values()
        wanted = [token for token in known if token.content in control and not token.special]
        for token in wanted:
            token.special = True
        copy.add_special_tokens(wanted)
    copy.encode_special_tokens = True
    return copy


def too_long(tokens: int, most: int) -> str:
    return (
        f"The query and its instruction are {tokens} tokens long; the reranker reads {most} at "
        "most. Shorten the instruction."
    )
