"""The built-in reranker as a base: late interaction that corrects the first stage's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from rerank.errors import BadInput, TrainingFailed
from rerank.inference.fused_files import (
    IMPORTANCE,
    FusedFiles,
    fused_files,
    load_encoder,
    untrained,
    write_fused,
)
from rerank.inference.fused_head import Head
from rerank.inference.fused_maxsim import TextReader
from rerank.inference.texts import refuse_what_is_no_text
from rerank.types import FloatArray, RerankRequest

from .bases import TrainingRow
from .lora import LoraSettings
from .parameters import groups
from .settings import Settings

# Layers below this one stay as the embedder has them, so only the upper ones need be shipped, and
# what the lower ones give for a text is computed once.
FIRST_TRAINED = 3
# Of what the lower layers gave, kept for the next time the same text is read.
KEPT_BYTES = 5 << 30


@dataclass(frozen=True)
class Asked:
    """The query of a row, its tokens' shares, how far its matches can be trusted, and the first
    stage's score of the document."""

    ids: tuple[int, ...]
    shares: FloatArray
    trust: float
    prior: float | None


class FusedModule(torch.nn.Module):
    """All weights. The names of the encoder's are those that its files have."""

    def __init__(self, encoder: Any, importance: torch.Tensor, head: Head) -> None:
        super().__init__()
        self.encoder = encoder.encoder
        self.embeddings = encoder.embeddings
        self.importance = torch.nn.Parameter(importance.clone())
        # Each stands for a factor, so that one rate suits numbers of any size.
        self.factors = torch.nn.Parameter(torch.zeros(2))
        self.shift = torch.nn.Parameter(torch.zeros(1))
        self.start = head

    def head(self) -> Head:
        prior, match = torch.exp(self.factors.detach()).tolist()
        return Head(
            self.start.prior * prior,
            self.start.match * match,
            self.start.bias + float(self.shift.detach()),
            self.start.guess_slope,
            self.start.guess_start,
            self.start.usual_match,
        )

    def logit(self, match: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        factors = torch.exp(self.factors)
        scaled = self.start.prior * factors[0] * prior + self.start.match * factors[1] * match
        return scaled + self.start.bias + self.shift


class FusedMaxSimBase:
    """`Trainable` over the embedder's weights or a model trained from them before.

    `first_trained`: the lowest encoder layer that learns; -1 for the embeddings too, as many as
    there are layers for the head alone.
    """

    kind = "fused late interaction"
    temperature = 1.0
    lora: LoraSettings | None = None

    def __init__(
        self,
        files: FusedFiles,
        device: torch.device,
        max_tokens: int = 0,
        first_trained: int = FIRST_TRAINED,
    ) -> None:
        model, importance = load_encoder(files, torch.float32)
        self._files = files
        self._model = model
        self._first = first_trained
        self.name = files.name
        self.revision = files.revision(torch.float32)
        self.device = device
        limit = files.max_document_tokens
        self.max_tokens = min(max_tokens, limit) if max_tokens else limit
        self._reader = TextReader(str(files.tokenizer_file), self.max_tokens)
        self._fused = FusedModule(model, importance, files.head).to(device)
        self.module: torch.nn.Module = self._fused
        self._fused.embeddings.requires_grad_(first_trained < 0)
        self._fused.encoder.layer[: max(first_trained, 0)].requires_grad_(False)
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._kept_bytes = 0

    def rows(
        self,
        query: str,
        instruction: str,
        documents: Sequence[str],
        priors: Sequence[float] | None = None,
    ) -> list[TrainingRow]:
        """Raises BadInput."""
        refuse_what_is_no_text(RerankRequest(query, documents, instruction))
        question = self._reader.question(query, instruction)
        ids = tuple(question.ids)
        found = self._reader.documents(documents)
        given: Sequence[float | None] = [None] * len(documents) if priors is None else priors
        return [
            TrainingRow(row, extra=Asked(ids, question.shares, question.trust, prior))
            for (row, _), prior in zip(found, given, strict=True)
        ]

    def pair_row(self, query: str, instruction: str, a: str, b: str) -> TrainingRow:
        """Raises BadInput always: both documents are never read together."""
        raise BadInput("The built-in reranker reads one document at a time: choose another base.")

    def logits(self, rows: Sequence[TrainingRow]) -> torch.Tensor:
        """Shape (rows,)."""
        asked: list[Asked] = [row.extra for row in rows]
        questions = {each.ids: each for each in asked}
        texts = [*questions, *(tuple(row.ids) for row in rows)]
        vectors = self._vectors(texts)
        read = dict(zip(questions, vectors, strict=False))
        documents = vectors[len(questions) :]
        weights = {ids: self._weights(read[ids], each) for ids, each in questions.items()}
        matches = torch.stack(
            [
                _match(read[each.ids][1:-1], weights[each.ids], document[1:-1])
                for each, document in zip(asked, documents, strict=True)
            ]
        )
        priors = self._priors(asked, matches)
        trust = torch.tensor(
            [1.0 if each.prior is None else each.trust for each in asked], device=self.device
        )
        usual = self._fused.start.usual_match
        return self._fused.logit(trust * matches + (1.0 - trust) * usual, priors)

    def parameter_groups(self, settings: Settings) -> list[dict[str, Any]]:
        """The trained layers; the head with its own rate."""
        return groups(self.module, "encoder.", settings)

    def checkpoint_layers(self, on: bool) -> None:
        """Raises TrainingFailed where it is wanted: the model is too small to need it."""
        if on:
            raise TrainingFailed("The built-in reranker is trained without checkpointing.")

    def save(self, directory: Path) -> None:
        """What differs from the base. Raises OSError."""
        layers = self._fused.encoder.layer
        weights = {
            f"encoder.layer.{number}.{name}": value
            for number in range(max(self._first, 0), len(layers))
            for name, value in layers[number].state_dict().items()
        }
        if self._first < 0:
            for name, value in self._fused.embeddings.state_dict().items():
                weights[f"embeddings.{name}"] = value
        write_fused(
            directory,
            base=self._files.base,
            description=(
                "Late interaction that corrects the first stage's score, trained from "
                "all-MiniLM-L6-v2."
            ),
            head=self._fused.head(),
            weights={**weights, IMPORTANCE: self._fused.importance},
            max_document_tokens=self._files.max_document_tokens,
        )

    def _priors(self, asked: Sequence[Asked], matches: torch.Tensor) -> torch.Tensor:
        head = self._fused.start
        guess = head.guess_slope * matches.detach() + head.guess_start
        known = torch.tensor([each.prior is not None for each in asked], device=self.device)
        given = torch.tensor([each.prior or 0.0 for each in asked], device=self.device)
        return torch.where(known, given, guess)

    def _weights(self, vectors: torch.Tensor, asked: Asked) -> torch.Tensor:
        shares = torch.from_numpy(asked.shares).to(self.device)
        raised = shares * torch.exp(vectors[1:-1] @ self._fused.importance)
        return raised / raised.sum().clamp(min=1e-9)

    def _vectors(self, texts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        """Unit vectors of each text's tokens."""
        lengths = [len(text) for text in texts]
        places = _Places(lengths, self.device)
        if self._first < 0:
            x = self._embedded(texts)
        else:
            x = torch.cat(self._lower(texts)).to(self.device, torch.float32)
        for layer in self._fused.encoder.layer[max(self._first, 0) :]:
            x = _layer(layer, x, places)
        return list(torch.split(functional.normalize(x.float(), dim=-1), lengths))

    def _lower(self, texts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        """What the frozen layers give, computed once for each text."""
        new = list(dict.fromkeys(text for text in texts if text not in self._kept))
        fresh: dict[tuple[int, ...], torch.Tensor] = {}
        if new:
            with torch.no_grad():
                lengths = [len(text) for text in new]
                x = self._embedded(new)
                places = _Places(lengths, self.device)
                for layer in self._fused.encoder.layer[: self._first]:
                    x = _layer(layer, x, places)
                parts = torch.split(x.to(torch.bfloat16), lengths)
            fresh = dict(zip(new, (part.clone() for part in parts), strict=True))
            for text, part in fresh.items():
                size = part.numel() * part.element_size()
                if self._kept_bytes + size <= KEPT_BYTES:
                    self._kept[text] = part
                    self._kept_bytes += size
        return [fresh[text] if text in fresh else self._kept[text] for text in texts]

    def _embedded(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        ids = torch.tensor([token for text in texts for token in text], device=self.device)
        counted = torch.cat([torch.arange(len(text), device=self.device) for text in texts])
        found: torch.Tensor = self._fused.embeddings(
            input_ids=ids[None],
            token_type_ids=torch.zeros_like(ids)[None],
            position_ids=counted[None],
        )[0]
        return found


class _Places:
    """Where the tokens of texts that lie end to end stand in a rectangle (texts, longest)."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.longest = max(lengths)
        self.texts = len(lengths)
        counts = torch.tensor(lengths, device=device)
        self.real = torch.arange(self.longest, device=device)[None] < counts[:, None]
        self.flat = self.real.flatten().nonzero()[:, 0]

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) -> (texts, longest, width)."""
        wide = x.new_zeros(self.texts * self.longest, x.shape[1])
        return wide.index_copy(0, self.flat, x).view(self.texts, self.longest, -1)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """(texts, longest, width) -> (tokens, width)."""
        return x.reshape(self.texts * self.longest, -1).index_select(0, self.flat)


def _layer(layer: Any, x: torch.Tensor, places: _Places) -> torch.Tensor:
    """A layer of BertModel over texts without padding; only attention sees the rectangle."""
    own = layer.attention.self
    heads = own.num_attention_heads

    def divided(part: torch.Tensor) -> torch.Tensor:
        spread = places.spread(part)
        return spread.view(places.texts, places.longest, heads, -1).transpose(1, 2)

    query, key, value = (divided(part(x)) for part in (own.query, own.key, own.value))
    # On a CPU the fused kernel's backward pass takes several times as long as plain products.
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    hidden = ~places.real[:, None, None, :]
    mixed = torch.softmax(scores.masked_fill(hidden, -1e4), dim=-1).to(value.dtype) @ value
    joined = places.gather(mixed.transpose(1, 2).flatten(2))
    attended = layer.attention.output.LayerNorm(layer.attention.output.dense(joined) + x)
    raised = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(attended))
    found: torch.Tensor = layer.output.LayerNorm(layer.output.dense(raised) + attended)
    return found


def _match(query: torch.Tensor, weights: torch.Tensor, document: torch.Tensor) -> torch.Tensor:
    if not len(query) or not len(document):
        return query.sum() * 0.0
    return (query @ document.T).amax(dim=-1).clamp(min=0.0) @ weights


def open_fused(name: str, directory: Path | None, device: torch.device, max_tokens: int) -> Any:
    """The base for "untrained" (`directory` None) or a model trained before; None for others."""
    files = untrained() if directory is None else fused_files(name, directory)
    return None if files is None else FusedMaxSimBase(files, device, max_tokens)
