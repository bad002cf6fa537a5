"""Rerankers that were trained here, as the engine knows them: `checkpoint:<number>` of one
collection."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerank.errors import ModelNotFound, RerankError
from rerank.types import Reranker
from searchapp.models import Checkpoint
from searchapp.models.training import checkpoint_number, serving_directory

logger = logging.getLogger(__name__)

# More than this are not held in memory; the one longest unused goes first.
MOST_LOADED = 4


def is_checkpoint(model: str) -> bool:
    return checkpoint_number(model) is not None


def checked(model: str, collection_id: int) -> str:
    """The name of a checkpoint that may serve this collection: its own, and neither refused nor
    retired. Asked for every search, because that may change. Raises ModelNotFound."""
    found = serving_directory(model, collection_id)
    if isinstance(found, str):
        raise ModelNotFound(found)
    return model


def directory_of(name: str) -> Path:
    """Of a name that was `checked`. Raises ModelNotFound."""
    row = Checkpoint.objects.filter(pk=checkpoint_number(name) or 0).first()
    if row is None:
        raise ModelNotFound(f"There is no {name.replace(':', ' ')}.")
    return row.path


def load(name: str, loader: Callable[[str], Reranker]) -> Reranker:
    """The checkpoint by `loader`, which takes a directory. Raises RerankError; pages show its
    sentence, so it names no directory."""
    path = directory_of(name)
    try:
        loaded: Any = loader(str(path))
    except RerankError as error:
        logger.error("%s in %s cannot be loaded: %s", name, path, error)
        reason = str(error).replace(str(path), name).replace(str(path.parent), "")
        raise type(error)(
            f"{name.replace(':', ' ').capitalize()} cannot be loaded: {reason}"
        ) from (error)
    # Scores, calibrations and reports are kept by this name; the directory is nobody's business.
    loaded.card = replace(
        loaded.card, name=name, description="A reranker trained on this collection’s judgments."
    )
    return loaded  # type: ignore[no-any-return]
