"""Name -> model on a device."""

from __future__ import annotations

import logging

from rerank.inference.cross_encoder import CrossEncoderReranker
from rerank.inference.devices import choose_device, choose_dtype
from rerank.inference.embedder import SentenceEmbedder
from rerank.inference.joint_maxsim import NAME as UNTRAINED
from rerank.inference.joint_maxsim import JointMaxSim
from rerank.inference.models import directory_of, embedder_facts
from rerank.types import Reranker

logger = logging.getLogger(__name__)


def load_reranker(name: str = "", device: str = "auto") -> Reranker:
    """`name` "" or "untrained": the built-in baseline; else a cross-encoder's name or directory.

    Raises ModelNotFound, WrongModel, DeviceError.
    """
    chosen = choose_device(device)
    dtype = choose_dtype(chosen)
    reranker: Reranker
    if name in {"", "default", UNTRAINED}:
        reranker = JointMaxSim(embedder_facts(""), chosen, dtype)
    else:
        reranker = CrossEncoderReranker(name, directory_of(name), chosen, dtype)
    card = reranker.card
    logger.info("reranker %s loaded on %s as %s", card.name, card.device, card.dtype)
    return reranker


def load_embedder(name: str = "", device: str = "auto") -> SentenceEmbedder:
    """`name` "" or "default": the built-in embedder.

    Raises ModelNotFound, WrongModel, DeviceError.
    """
    chosen = choose_device(device)
    embedder = SentenceEmbedder(embedder_facts(name), chosen, choose_dtype(chosen))
    card = embedder.card
    logger.info("embedder %s loaded on %s as %s", card.name, card.device, card.dtype)
    return embedder
