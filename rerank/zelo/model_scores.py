"""A query's candidates scored by a model, for the second pass and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from rerank.types import Reranker, RerankRequest, RerankScores

from .calibration_stage import Serve
from .recipe import Training
from .records import Candidates
from .second_pass import Score


def priors_of(query: Candidates) -> list[float] | None:
    """None where a document has none."""
    known = [each.prior for each in query.documents if each.prior is not None]
    return known if len(known) == len(query.documents) else None


def serving(directory: str, device: str) -> Serve:
    """As the product would: through the loader. Raises ModelNotFound, WrongModel, DeviceError."""
    from rerank.ranked import load_reranker

    reranker: Reranker = load_reranker(directory, device)

    def serve(query: Candidates) -> RerankScores:
        texts = [each.text for each in query.documents]
        request = RerankRequest(query.query, texts, query.instruction or None, priors_of(query))
        return reranker.score(request)

    return serve


def served(directory: str, device: str) -> Score:
    """The logits alone. Raises as `serving`."""
    serve = serving(directory, device)

    def score(query: Candidates) -> Sequence[float]:
        scores: list[float] = serve(query).logits.tolist()
        return scores

    return score


def untrained(training: Training, device: str, seed: int) -> Score:
    """The base before its first step; a new head gives equal scores. Raises as `open_base`."""
    from rerank.training.bases import score_rows

    from .training_stage import open_training_base

    base = open_training_base(training, device, seed)

    def score(query: Candidates) -> Sequence[float]:
        texts = [each.text for each in query.documents]
        rows = base.rows(query.query, query.instruction, texts, priors_of(query))
        scores: list[float] = score_rows(base, rows).tolist()
        return scores

    return score
