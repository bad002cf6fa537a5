"""Name -> model on a device.

Each model brings its own imports, which take seconds, only when it is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging as _untyped_logging

from rerank.inference import fp8
from rerank.inference.devices import choose_device, choose_dtype, dtype_named
from rerank.inference.models import UNTRAINED, directory_of, embedder_facts
from rerank.recipes import build, is_recipe, read_recipe
from rerank.types import Reranker

if TYPE_CHECKING:
    import torch

    from rerank.inference.embedder import SentenceEmbedder

logger = logging.getLogger(__name__)
transformers_logging: Any = _untyped_logging


def load_reranker(name: str = "", device: str = "auto", dtype_name: str = "") -> Reranker:
    """`name` "" or "untrained": the built-in baseline; else the name or directory of a
    zerank model, a late-interaction model or a cross-encoder, or a recipe
    (rerank/recipes.py). `dtype_name`: "float32", say; "" for what suits the device.

    Raises BadRecipe, ModelNotFound, WrongModel (also when a zerank model does not give its
    published scores), DeviceError.
    """
    if is_recipe(name):
        recipe = read_recipe(name)
        return build(recipe, lambda stage: _stage(stage, device, dtype_name))
    chosen = choose_device(device)
    dtype = dtype_named(dtype_name, chosen)
    # Only zerank multiplies in 8 bits; a cascade's other models run in what suits the device.
    plain = choose_dtype(chosen) if dtype == fp8.DTYPE else dtype
    reranker: Reranker
    with quietly():
        if name in {"", "default", UNTRAINED}:
            from rerank.inference.fused_files import untrained
            from rerank.inference.fused_maxsim import FusedMaxSim

            reranker = FusedMaxSim(untrained(), chosen, plain)
        else:
            directory = directory_of(name)
            reranker = (
                _fused(name, directory, chosen, plain)
                or _zerank(name, directory, chosen, dtype)
                or _late_interaction(name, directory, chosen, plain)
                or _cross_encoder(name, directory, chosen, plain)
            )
    card = reranker.card
    logger.info("reranker %s loaded on %s as %s", card.name, card.device, card.dtype)
    return reranker


def _stage(name: str, device: str, dtype_name: str) -> Reranker:
    """A model of a cascade: several threads ask it at once, only its scorer's runs it."""
    from rerank.inference.scorer import open_scorer

    return open_scorer(load_reranker(name, device, dtype_name))


def _fused(name: str, directory: Path, device: torch.device, dtype: torch.dtype) -> Reranker | None:
    """None when the directory holds a model of another kind."""
    from rerank.inference.fused_files import fused_files

    files = fused_files(name, directory)
    if files is None:
        return None
    from rerank.inference.fused_maxsim import FusedMaxSim

    return FusedMaxSim(files, device, dtype)


def _zerank(
    name: str, directory: Path, device: torch.device, dtype: torch.dtype
) -> Reranker | None:
    """None when the directory holds a model of another kind."""
    from rerank.inference.zerank_files import zerank_files

    files = zerank_files(name, directory)
    if files is None:
        return None
    from rerank.inference.zerank import ZerankReranker

    reranker = ZerankReranker(files, device, dtype)
    checked = reranker.check_golden()
    logger.info("%s gives %d published scores again", name, checked)
    return reranker


def _late_interaction(
    name: str, directory: Path, device: torch.device, dtype: torch.dtype
) -> Reranker | None:
    """None when the directory holds a model of another kind."""
    from rerank.inference.late_interaction import LateInteractionReranker, is_late_interaction

    if not is_late_interaction(directory):
        return None
    return LateInteractionReranker(name, directory, device, dtype)


def _cross_encoder(
    name: str, directory: Path, device: torch.device, dtype: torch.dtype
) -> Reranker:
    from rerank.inference.cross_encoder import CrossEncoderReranker

    return CrossEncoderReranker(name, directory, device, dtype)


def load_embedder(name: str = "", device: str = "auto") -> SentenceEmbedder:
    """`name` "" or "default": the built-in embedder.

    Raises ModelNotFound, WrongModel, DeviceError.
    """
    chosen = choose_device(device)
    from rerank.inference.embedder import SentenceEmbedder

    with quietly():
        embedder = SentenceEmbedder(embedder_facts(name), chosen, choose_dtype(chosen))
    card = embedder.card
    logger.info("embedder %s loaded on %s as %s", card.name, card.device, card.dtype)
    return embedder


@contextmanager
def quietly() -> Iterator[None]:
    """Without progress bars and tables in the log of a worker; what matters raises instead."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
