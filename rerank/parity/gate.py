"""Runs the checks, in order, on a model alone or beside a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rerank.errors import RerankError
from rerank.parity.comparison import (
    instruction_agrees,
    kendall_tau,
    logit_error,
    ndcg,
    relevance_error,
)
from rerank.parity.own_checks import OWN_CHECKS
from rerank.parity.probes import Probe, built_in_probes
from rerank.parity.report import Check, ParityReport, Side
from rerank.parity.subject import Subject
from rerank.types import Reranker


def _nothing(_: Check) -> None:
    """Nobody watches."""


def self_check(
    candidate: Reranker,
    *,
    probes: Sequence[Probe] | None = None,
    on_check: Callable[[Check], None] = _nothing,
) -> ParityReport:
    """The checks that need no reference. `probes` None: the built-in ones."""
    return run_parity(candidate, None, probes=probes, on_check=on_check)


def run_parity(
    candidate: Reranker,
    reference: Reranker | None = None,
    *,
    probes: Sequence[Probe] | None = None,
    least_tau: float | None = None,
    on_check: Callable[[Check], None] = _nothing,
) -> ParityReport:
    """All checks; with `reference` None those that need none.

    A check whose request the model refuses or cannot answer has failed, with that error's sentence.
    `on_check` sees each check as it ends. `least_tau` None: by the candidate's number format.
    """
    asked = tuple(probes) if probes is not None else built_in_probes()
    subject = Subject(candidate, asked)
    checks: list[tuple[str, Callable[[], Check]]] = [
        (check.__name__, partial(check, subject)) for check in OWN_CHECKS
    ]
    if reference is not None:
        other = Subject(reference, asked)
        checks += [
            ("kendall_tau", partial(kendall_tau, subject, other, least_tau)),
            ("relevance_error", partial(relevance_error, subject, other)),
            ("logit_error", partial(logit_error, subject, other)),
            ("ndcg", partial(ndcg, subject, other)),
            ("instruction_agrees", partial(instruction_agrees, subject, other)),
        ]
    found = []
    for name, check in checks:
        found.append(_guarded(name, check))
        on_check(found[-1])
    return ParityReport(
        candidate=Side.of(candidate.card),
        reference=Side.of(reference.card) if reference is not None else None,
        checks=tuple(found),
    )


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except RerankError as error:
        return Check(name, False, str(error))
