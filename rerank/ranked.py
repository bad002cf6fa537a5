"""The library's face: a model by name, and documents ranked by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import BadInput, WrongModel
from rerank.ranking.calibration_file import ModelCalibration, load_model_calibration
from rerank.types import Embedder, ModelCard, Reranker, RerankRequest, RerankScores

# A text, or a mapping whose "text" is scored; other fields are carried along.
Document = str | Mapping[str, Any]


@dataclass(frozen=True)
class Ranked:
    """One document in its new place.

    `document`: the object that was given. `index`: its place there, from 0; `rank`: its new one,
    from 1. `logit`: the model's raw output. `relevance`: in [0, 1], by the model family's own map.
    `calibrated`: in [0, 1], by the map that lies beside the model's weights; None where none does.
    """

    document: Document
    index: int
    rank: int
    logit: float
    relevance: float
    calibrated: float | None = None


class Model:
    """A loaded reranker. `scores` gives the numbers in the order given, `rank` the documents in
    theirs. `calibration`: what lies beside its weights."""

    def __init__(self, reranker: Reranker, calibration: ModelCalibration | None = None) -> None:
        self._reranker = reranker
        self.calibration = calibration

    @property
    def card(self) -> ModelCard:
        return self._reranker.card

    def rank(
        self,
        query: str,
        documents: Sequence[Document],
        *,
        instruction: str | None = None,
        top_k: int | None = None,
    ) -> list[Ranked]:
        """Best first; equal logits keep the order given. `top_k` None: all of them.

        Raises BadInput for what is no text and for a `top_k` below 1, DeviceError.
        """
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise BadInput(f"top_k is {top_k!r}; it must be at least 1, or None for all documents.")
        scores = self.scores(query, documents, instruction=instruction)
        return ranked(documents, scores, top_k, self.calibration)

    def scores(
        self, query: str, documents: Sequence[Document], *, instruction: str | None = None
    ) -> RerankScores:
        """Raises BadInput for what is no text, DeviceError."""
        _check_text(query, "The query")
        if instruction is not None:
            _check_text(instruction, "The instruction")
        if isinstance(documents, str | bytes | Mapping):
            raise BadInput("The documents must be a list of texts, not a single one.")
        texts = [_text_of(document, place) for place, document in enumerate(documents, start=1)]
        return self._reranker.score(RerankRequest(query, texts, instruction))


def ranked(
    documents: Sequence[Document],
    scores: RerankScores,
    top_k: int | None = None,
    calibration: ModelCalibration | None = None,
) -> list[Ranked]:
    """Best first; equal logits keep the order given."""
    logits, relevance = scores.logits.tolist(), scores.relevance.tolist()
    calibrated: list[float | None] = [None] * len(logits)
    if calibration is not None:
        calibrated = calibration.calibration.apply(logits, relevance).tolist()
    order = sorted(range(len(logits)), key=lambda index: -logits[index])[:top_k]
    return [
        Ranked(documents[index], index, rank, logits[index], relevance[index], calibrated[index])
        for rank, index in enumerate(order, start=1)
    ]


def load(name: str = "", device: str = "auto", dtype: str | None = None) -> Model:
    """`name`: of a zerank model ("zerank-2", pinned "zerank-2@revision"), any cross-encoder on the
    hub, a local directory, a recipe (rerank/recipes.py), or "" for the built-in baseline.
    `device`: "auto", "cpu", "cuda", ... `dtype`: "float32", say; None for what suits the device.

    Raises ModelNotFound, WrongModel, BadRecipe, DeviceError.
    """
    return Model(load_reranker(name, device, dtype), _calibration_of(name))


def load_reranker(name: str = "", device: str = "auto", dtype: str | None = None) -> Reranker:
    """As `load`, the bare reranker."""
    # torch takes seconds to import; who imports the library may never load a model.
    from rerank.inference import loading

    return loading.load_reranker(name, device, dtype or "")


def load_embedder(name: str = "", device: str = "auto") -> Embedder:
    """Raises ModelNotFound, WrongModel, DeviceError."""
    from rerank.inference import loading

    return loading.load_embedder(name, device)


def _calibration_of(name: str) -> ModelCalibration | None:
    """Of a directory; hub models bring none."""
    directory = Path(name).expanduser()
    if not name or not directory.is_dir():
        return None
    try:
        return load_model_calibration(directory)
    except ValueError as error:
        raise WrongModel(str(error)) from error


def _text_of(document: Document, place: int) -> str:
    if isinstance(document, Mapping):
        if "text" not in document:
            raise BadInput(f'Document {place} has no "text".')
        return _check_text(document["text"], f'The "text" of document {place}')
    return _check_text(document, f"Document {place}")


def _check_text(value: Any, what: str) -> str:
    if isinstance(value, bytes):
        raise BadInput(f"{what} is bytes; decode it first.")
    if not isinstance(value, str):
        raise BadInput(f"{what} must be text, not {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{what} is no valid Unicode text. Decode its bytes first.") from error
    return value
