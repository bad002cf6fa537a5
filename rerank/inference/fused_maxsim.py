"""The built-in reranker: the first stage's score, corrected by late interaction.

Query and document go through the encoder apart. Each query token looks for its best match among
the document's tokens (MaxSim, Khattab & Zaharia 2020), and the weighted mean of these cosines is
added to the first stage's fused score. Untrained, the encoder is the built-in embedder's;
training changes its upper layers, what each query token counts, and the three numbers of the head.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from rerank.errors import BadInput
from rerank.inference.batching import refuse_what_is_no_number, score_now
from rerank.inference.devices import TokenBudget, describe, is_memory_error
from rerank.inference.fused_files import FusedFiles, load_encoder
from rerank.inference.packed_bert import PACKED_BUDGET, Encoder, EvenThreads, packed_encoder
from rerank.inference.padding import padded
from rerank.inference.prompts import instruction_block
from rerank.inference.rounded_rows import round_rows
from rerank.inference.texts import first_ids, refuse_what_is_no_text
from rerank.types import FloatArray, ModelCard, Prepared, RerankRequest, RerankScores, Row

# Share of the instruction's tokens in the score, however long the instruction is.
INSTRUCTION_SHARE = 0.25
# Of query and instruction together; the positions of a BERT end at 512.
MAX_QUERY_TOKENS = 480
# Vectors of documents read before, kept for other queries: about 90 kB for 120 tokens.
KEPT_BYTES = 256 << 20
# Unicode's Latin blocks.
_LATIN_END = 0x250
_LATIN_ADDED = range(0x1E00, 0x1F00)


@dataclass
class Question:
    """Query and instruction as the model reads them: `ids` with [CLS] and [SEP], `shares` of the
    tokens between these in the score, together 1. `trust`: how far MaxSim can be believed, the
    share of the query's letters that are Latin, for the encoder has read English only. `vectors`
    (tokens, hidden) and `weights` (tokens,) once they are computed."""

    ids: list[int]
    shares: FloatArray
    trust: float = 1.0
    vectors: torch.Tensor | None = None
    weights: torch.Tensor | None = None


class TextReader:
    """Texts -> the ids that serving and training read alike."""

    def __init__(self, tokenizer_file: str, max_document_tokens: int) -> None:
        self._tokenizer: Any = Tokenizer.from_file(tokenizer_file)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # "[SEP]" in a document is text, not a separator.
        self._tokenizer.encode_special_tokens = True
        self._cls = int(self._tokenizer.token_to_id("[CLS]") or 0)
        self._sep = int(self._tokenizer.token_to_id("[SEP]") or 0)
        self._room = max_document_tokens - 2

    def question(self, query: str, instruction: str | None) -> Question:
        """Raises BadInput when it is longer than the model reads."""
        asked, told = self._encode([query, instruction_block(instruction)])
        if len(asked) + len(told) > MAX_QUERY_TOKENS:
            raise BadInput(
                f"The query and its instruction are {len(asked) + len(told)} tokens long; the "
                f"reranker reads {MAX_QUERY_TOKENS} at most."
            )
        ids = [self._cls, *asked, *told, self._sep]
        return Question(ids, _shares(len(asked), len(told)), latin_share(query))

    def documents(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """Ids of each with [CLS] and [SEP], and whether it was cut."""
        found = first_ids(self._encode, texts, self._room)
        return [([self._cls, *ids, self._sep], cut) for ids, cut in found]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in encoded]


class FusedMaxSim:
    """A BERT-type encoder behind the `Reranker` protocol.

    logit = a x prior + b x MaxSim + c with the head's numbers (`Head`); without priors the head's
    own guess stands in for them. relevance = sigmoid(logit).
    """

    def __init__(self, files: FusedFiles, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self.head = files.head
        model, importance = load_encoder(files, dtype)
        self._importance = importance.to(device)
        self._model: Any = model.to(device).eval()
        self._encoder = packed_encoder(self._model)
        if self._encoder is None:
            round_rows(self._model)
            self._budget = TokenBudget(device)
        else:
            self._budget = TokenBudget(device, PACKED_BUDGET)
            self._threads = EvenThreads()
        self._reader = TextReader(str(files.tokenizer_file), files.max_document_tokens)
        self.card = ModelCard(
            name=files.name,
            description=files.description,
            device=describe(device),
            dtype=str(dtype).removeprefix("torch."),
            follows_instructions=False,
            revision=files.revision(dtype),
        )
        self._scale = files.scale
        self._kept = KeptVectors()

    @property
    def budget(self) -> int:
        """Tokens of one batch."""
        return self._budget.tokens

    def score(self, request: RerankRequest) -> RerankScores:
        """Raises BadInput when query and instruction are too long, DeviceError."""
        return score_now(self, request)

    def prepare(self, request: RerankRequest) -> Prepared:
        """Rows [CLS] document [SEP]; `shared` is the `Question`. Raises BadInput."""
        started = time.perf_counter()
        refuse_what_is_no_text(request)
        question = self._reader.question(request.query, request.instruction)
        if request.priors is not None and len(request.priors) != len(request.documents):
            raise BadInput(
                f"{len(request.priors)} priors were given for {len(request.documents)} documents."
            )
        found = self._reader.documents(request.documents)
        return Prepared(
            request,
            [ids for ids, _ in found],
            [len(ids) for ids, _ in found],
            # The two parts weigh differently, so where one ends belongs to the prompt.
            f"{request.query}\0{instruction_block(request.instruction)}",
            truncated=sum(cut for _, cut in found),
            tokenize_ms=(time.perf_counter() - started) * 1000,
            shared=question,
        )

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """MaxSim of each row, shape (rows,). Documents read before cost next to nothing."""
        keys = [tuple(prepared.rows[place]) for prepared, place in rows]
        known = {key: kept for key in keys if (kept := self._kept.get(key)) is not None}
        new = list(dict.fromkeys(key for key in keys if key not in known))
        if new:
            with self._budget.spending(len(new) * max(map(len, new))):
                read = self._documents([list(key) for key in new])
            for key, vectors in zip(new, read, strict=True):
                known[key] = vectors
                self._kept.add(key, vectors)
        found = [
            maxsim(self._read(prepared.shared), known[key])
            for key, (prepared, _) in zip(keys, rows, strict=True)
        ]
        return np.array(found, dtype=np.float32)

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        """Raises BadInput for values that are no numbers."""
        question: Question = prepared.shared
        logits = self.head.logits(raw, prepared.request.priors, question.trust)
        refuse_what_is_no_number(logits)
        question.vectors = question.weights = None
        return RerankScores(
            logits=logits,
            relevance=(1.0 / (1.0 + np.exp(-logits))).astype(np.float32),
            scale=self._scale,
            truncated=prepared.truncated,
            tokens=sum(prepared.lengths) + len(question.ids),
            tokenize_ms=prepared.tokenize_ms,
        )

    def read_documents(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Unit vectors of each document's tokens, frame included, for `match`; float16."""
        return self._documents([ids for ids, _ in self._reader.documents(texts)])

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text as a document, frame included."""
        return [ids for ids, _ in self._reader.documents(texts)]

    def states(self, texts: Sequence[str]) -> list[tuple[list[int], torch.Tensor]]:
        """`token_ids` and their last hidden states (tokens, hidden)."""
        rows = self.token_ids(texts)
        return list(zip(rows, self._hidden(rows), strict=True))

    def means(self, texts: Sequence[str]) -> list[FloatArray]:
        """Mean hidden state of each text's tokens, (hidden,): what an embedder would pool."""
        return [part.mean(dim=0).cpu().numpy() for _, part in self.states(texts)]

    def match(self, query: str, instruction: str, documents: Sequence[torch.Tensor]) -> FloatArray:
        """MaxSim of documents read before, shape (n,). Raises BadInput."""
        question = self._read(self._reader.question(query, instruction))
        with torch.inference_mode():
            return np.array([maxsim(question, each) for each in documents], dtype=np.float32)

    def is_memory_error(self, error: BaseException) -> bool:
        """Whether a smaller batch might have helped."""
        return is_memory_error(error)

    def _read(self, question: Question) -> Question:
        """Computed at the first batch that holds a row of the request."""
        if question.vectors is None:
            with torch.inference_mode():
                own = self._vectors([question.ids])[0]
                question.weights = token_weights(own[1:-1], question.shares, self._importance)
                question.vectors = own[1:-1]
        return question

    def _vectors(self, rows: Sequence[list[int]]) -> list[torch.Tensor]:
        """Unit vectors of each row's tokens."""
        return [torch.nn.functional.normalize(part, dim=-1) for part in self._hidden(rows)]

    @torch.inference_mode()
    def _hidden(self, rows: Sequence[list[int]]) -> list[torch.Tensor]:
        """The last hidden state of each row's tokens, float32."""
        if self._encoder is not None:
            return list(_parts(self._encoder, rows))
        ids, mask = (tensor.to(self._device) for tensor in padded(rows, 0))
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return [hidden[place, : len(row)] for place, row in enumerate(rows)]

    def _documents(self, rows: Sequence[list[int]]) -> list[torch.Tensor]:
        """As `_vectors`, in float16, each thread with rows of its own where rows are packed."""
        if self._encoder is None:
            return [part.half() for part in self._vectors(rows)]
        found: list[torch.Tensor] = [torch.empty(0)] * len(rows)

        def compute(places: list[int]) -> FloatArray:
            for place, part in zip(places, self._vectors([rows[p] for p in places]), strict=True):
                found[place] = part.half()
            return np.zeros(len(places), dtype=np.float32)

        self._threads([len(row) for row in rows], compute)
        return found


class KeptVectors:
    """Vectors of documents within a bound of bytes; what was not asked for longest goes first. Safe
    to use from several threads."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()

    def get(self, key: tuple[int, ...]) -> torch.Tensor | None:
        with self._lock:
            if key in self._vectors:
                self._vectors.move_to_end(key)
            return self._vectors.get(key)

    def add(self, key: tuple[int, ...], vectors: torch.Tensor) -> None:
        size = _size(key, vectors)
        with self._lock:
            if size > self._most or key in self._vectors:
                return
            # A copy of its own: a part of a batch would keep all of the batch.
            self._vectors[key] = vectors.clone()
            self._bytes += size
            while self._bytes > self._most:
                self._bytes -= _size(*self._vectors.popitem(last=False))


def _size(key: tuple[int, ...], vectors: torch.Tensor) -> int:
    """Bytes, with about what Python takes for the ids."""
    return vectors.numel() * vectors.element_size() + 8 * len(key) + 200


def latin_share(text: str) -> float:
    """Of the letters, in [0, 1]; 1 for a text without letters."""
    letters = [ord(character) for character in text if character.isalpha()]
    latin = sum(code < _LATIN_END or code in _LATIN_ADDED for code in letters)
    return latin / len(letters) if letters else 1.0


def token_weights(
    vectors: torch.Tensor, shares: FloatArray, importance: torch.Tensor
) -> torch.Tensor:
    """What each token counts, shape (tokens,), together 1: its share times the exponential of how
    its unit vector lies to `importance`, where 0 leaves the shares as they are."""
    if not len(vectors):
        return vectors.new_zeros(0)
    part = torch.from_numpy(shares).to(vectors.device)
    raised = part * torch.exp(vectors @ importance.to(vectors.dtype))
    return raised / raised.sum()


def maxsim(question: Question, document: torch.Tensor) -> float:
    """Weighted mean over the query's tokens of the best cosine; `document` holds the unit vectors
    of all its tokens, of which the first and the last are frame."""
    if question.vectors is None or question.weights is None:
        raise ValueError("The question was not read.")
    words = document[1:-1]
    if not len(words) or not len(question.vectors):
        return 0.0
    best = (question.vectors @ words.to(question.vectors.dtype).T).amax(dim=-1).clamp(min=0.0)
    return float(best @ question.weights)


def _parts(encoder: Encoder, rows: Sequence[list[int]]) -> tuple[torch.Tensor, ...]:
    return torch.split_with_sizes(encoder.hidden(rows).float(), [len(row) for row in rows])


def _shares(query: int, instruction: int) -> FloatArray:
    """Of each token of query and instruction; together 1."""
    asked = query + instruction
    shares = np.full(asked, 1.0 / max(asked, 1), dtype=np.float32)
    if query and instruction:
        shares[:query] = (1.0 - INSTRUCTION_SHARE) / query
        shares[query:] = INSTRUCTION_SHARE / instruction
    return shares
