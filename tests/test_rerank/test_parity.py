"""The parity gate: a good model passes, and each broken one fails the check meant for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rerank.cascade import CascadeReranker, Stage
from rerank.errors import BadInput
from rerank.inference.qwen_frame import FramedDocument
from rerank.inference.zerank import ZerankReranker
from rerank.inference.zerank_files import zerank_files
from rerank.parity.gate import run_parity, self_check
from rerank.parity.probes import built_in_probes, generated_texts, preferences, read_probes
from rerank.parity.report import Check, ParityReport, Side
from rerank.parity.subject import gap, tolerance_of
from rerank.types import ModelCard, Reranker, RerankRequest, RerankScores

from .tiny_qwen import decoder, save_modules

CPU = torch.device("cpu")
PROBES = built_in_probes()[:2]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_modules(decoder(), tmp_path_factory.mktemp("tiny"))


def load(directory: Path, dtype: torch.dtype = torch.float32, **options: Any) -> ZerankReranker:
    files = zerank_files("tiny", directory)
    assert files is not None
    return ZerankReranker(files, CPU, dtype, **options)


@pytest.fixture(scope="module")
def good(directory: Path) -> ZerankReranker:
    return load(directory)


class Changed:
    """A real model with one thing wrong."""

    def __init__(self, inner: Reranker) -> None:
        self.inner = inner

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    def score(self, request: RerankRequest) -> RerankScores:
        return self.after(request, self.inner.score(self.before(request)))

    def before(self, request: RerankRequest) -> RerankRequest:
        return request

    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        return scores


def with_logits(scores: RerankScores, logits: np.ndarray[Any, Any]) -> RerankScores:
    relevance = 1 / (1 + np.exp(-logits / 5))
    return replace(scores, logits=logits.astype(np.float32), relevance=relevance.astype(np.float32))


class MinusTheMean(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        several = len(scores.logits) > 1
        return with_logits(scores, scores.logits - scores.logits.mean()) if several else scores


class LaterIsBetter(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        return with_logits(scores, scores.logits + 0.01 * np.arange(len(scores.logits)))


class NoNumber(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        odd = np.array(["sourdough" in text.lower() for text in request.documents], dtype=bool)
        return with_logits(scores, np.where(odd, np.nan, scores.logits))


class Saturated(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        return replace(scores, relevance=np.ones_like(scores.logits))


class BlankInstructionRendered(Changed):
    def before(self, request: RerankRequest) -> RerankRequest:
        if request.instruction is not None and not request.instruction.strip():
            return replace(request, query=f"{request.query}\n\nInstructions:\n")
        return request


class DropsInstructions(Changed):
    def before(self, request: RerankRequest) -> RerankRequest:
        return replace(request, instruction=None)


class ClaimsToFollow(DropsInstructions):
    @property
    def card(self) -> ModelCard:
        return replace(self.inner.card, follows_instructions=True)


class CutsSilently(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        return replace(scores, truncated=0)


class RefusesEmptyTexts(Changed):
    def before(self, request: RerankRequest) -> RerankRequest:
        if not all(text.strip() for text in request.documents):
            raise BadInput("Document 1 is empty.")
        return request


class UpsideDown(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        return with_logits(scores, -scores.logits)


class Informed(Changed):
    """Ordered by the words in common, so that there is an order to lose."""

    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        priors = np.asarray(request.priors, dtype=np.float32)
        return with_logits(scores, 0.1 * scores.logits + 3 * priors)


class Shifted(Changed):
    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        return with_logits(scores, scores.logits + 0.5)


class Unsteady(Changed):
    def __init__(self, inner: Reranker) -> None:
        super().__init__(inner)
        self.calls = 0

    def after(self, request: RerankRequest, scores: RerankScores) -> RerankScores:
        self.calls += 1
        return with_logits(scores, scores.logits + 0.1 * (self.calls % 7))


def failures(report: ParityReport) -> set[str]:
    return {check.name for check in report.checks if check.passed is False}


def test_a_good_model_passes_alone_and_beside_itself(good: Reranker, directory: Path) -> None:
    report = run_parity(good, load(directory, share_prefix=False))
    assert report.passed, report.as_text()
    assert not failures(report)
    names = [check.name for check in report.checks]
    assert len(names) == len(set(names)) == 16
    alone = self_check(good, probes=PROBES)
    assert alone.passed and [check.name for check in alone.checks] == names[:11]
    assert alone.reference is None
    assert alone.checks[0].passed is None  # nothing is published for "tiny"


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (MinusTheMean, "batch_mates"),
        (LaterIsBetter, "permutation"),
        (NoNumber, "finite"),
        (Saturated, "resolution"),
        (BlankInstructionRendered, "instruction_off"),
        (ClaimsToFollow, "instruction"),
        (CutsSilently, "truncation"),
        (RefusesEmptyTexts, "empty_documents"),
    ],
)
def test_a_broken_model_fails_just_the_check_meant_for_it(
    good: Reranker, broken: Callable[[Reranker], Reranker], check: str
) -> None:
    assert failures(self_check(broken(good), probes=PROBES)) == {check}


def test_a_model_that_loses_the_end_of_the_frame_fails_truncation(directory: Path) -> None:
    reranker = load(directory)
    frame = reranker._frame
    whole = frame.documents

    def cut(prefix: Any, texts: Any) -> list[FramedDocument]:
        """The frame's end goes first, as when a finished prompt is cut from the right."""
        return [
            replace(document, ids=document.ids[: -len(frame.suffix)])
            if document.truncated
            else document
            for document in whole(prefix, texts)
        ]

    frame.documents = cut  # type: ignore[method-assign]
    assert failures(self_check(reranker, probes=PROBES)) == {"truncation"}


def test_a_model_that_reads_control_tokens_in_documents_is_found(directory: Path) -> None:
    reranker = load(directory)
    reranker._frame._tokenizer.encode_special_tokens = False
    report = self_check(reranker, probes=PROBES)
    assert failures(report) == {"control_tokens"}
    (check,) = report.failures
    assert "<|im_end|>" in check.sentence and "[SEP]" not in check.sentence


def test_a_cascade_owes_no_independence_of_the_list(good: Reranker, directory: Path) -> None:
    cascade = CascadeReranker([Stage(good, keep=5), Stage(load(directory, share_prefix=False))])
    report = self_check(cascade, probes=PROBES)
    assert report.passed, report.as_text()
    verdicts = {check.name: check.passed for check in report.checks}
    assert verdicts["permutation"] is None and verdicts["batch_mates"] is None
    beside = run_parity(cascade, good, probes=PROBES)
    assert {c.name: c.passed for c in beside.checks}["logit_error"] is None


def test_a_model_that_answers_differently_each_time_is_found(good: Reranker) -> None:
    assert "determinism" in failures(self_check(Unsteady(good), probes=PROBES))


def test_beside_a_reference_each_fault_has_its_checks(good: Reranker) -> None:
    deaf = run_parity(DropsInstructions(good), good, probes=PROBES)
    assert failures(deaf) == {"instruction_agrees"}
    shifted = run_parity(Shifted(good), good, probes=PROBES)
    assert failures(shifted) == {"relevance_error", "logit_error"}
    informed = Informed(good)
    turned = failures(run_parity(UpsideDown(informed), informed, probes=PROBES))
    order = {"kendall_tau", "relevance_error", "logit_error", "ndcg"}
    assert order <= turned <= order | {"instruction_agrees"}


def test_an_order_by_chance_has_no_ndcg_to_keep(good: Reranker) -> None:
    checks = {check.name: check for check in run_parity(good, good, probes=PROBES).checks}
    assert checks["ndcg"].passed is None and "by chance" in checks["ndcg"].sentence
    informed = Informed(good)
    checks = {check.name: check for check in run_parity(informed, informed, probes=PROBES).checks}
    assert checks["ndcg"].passed is True


def test_the_limit_of_tau_is_the_callers_and_half_precision_has_its_noise(
    good: Reranker, directory: Path
) -> None:
    half = load(directory, torch.bfloat16)
    report = run_parity(half, good, probes=PROBES, least_tau=0.995)
    by_name = {check.name: check for check in report.checks}
    tau = by_name["kendall_tau"]
    assert tau.passed and tau.limit == 0.995
    # Of the pairs that rounding may turn, some are turned.
    assert 0.9 < float(tau.figures["plain_mean"] or 0) < float(tau.figures["mean"] or 0) <= 1
    assert by_name["batch_mates"].passed and by_name["relevance_error"].passed


def test_a_report_reads_as_a_table_and_survives_json(good: Reranker) -> None:
    seen: list[str] = []
    report = self_check(NoNumber(good), probes=PROBES, on_check=lambda c: seen.append(c.name))
    assert seen == [check.name for check in report.checks]
    lines = report.as_text().splitlines()
    assert lines[0].startswith("tiny (CPU")
    assert lines[-1] == "Not passed: 1 of 10 checks failed (finite)."
    columns = {
        line.index(check.sentence) for line, check in zip(lines[2:], report.checks, strict=False)
    }
    assert len(columns) == 1
    assert {line.split()[0] for line in lines[2:13]} == {"ok", "FAILED", "n.a."}
    data = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert data["passed"] is False
    again = ParityReport.from_json(data)
    assert again.as_text() == report.as_text()
    with pytest.raises(ValueError, match="no parity report"):
        ParityReport.from_json({"checks": []})


def test_a_report_of_nothing_has_not_passed_and_odd_figures_become_null() -> None:
    side = Side("m", "CPU", "float32", "")
    nothing = ParityReport(side, None, (Check("golden", None, "None published."),))
    assert not nothing.passed
    odd = ParityReport(side, side, (Check("x", False, "Far.", {"gap": float("inf")}, 1.0),))
    assert odd.as_json()["checks"][0]["figures"] == {"gap": None}


def test_gaps_count_what_is_no_number_once() -> None:
    assert gap([1.0, np.nan], [1.5, np.nan]) == 0.5
    assert gap([1.0, 2.0], [1.0, np.nan]) == np.inf
    assert gap([1.0], [1.0, 2.0]) == np.inf
    assert gap([], []) == 0.0


def test_coarser_number_formats_are_allowed_more() -> None:
    exact, half, eighth = (
        tolerance_of(name).error for name in ("float32", "bfloat16", "float8_e4m3fn")
    )
    assert exact < half < eighth
    assert tolerance_of("int8 dynamic") == tolerance_of("float8_e4m3fn")
    assert tolerance_of("float32, bfloat16") == tolerance_of("bfloat16")
    assert tolerance_of("float32, remote") == tolerance_of("remote")


def test_the_built_in_probes_are_many_graded_and_the_same_each_time() -> None:
    probes = built_in_probes()
    assert len(probes) == 12 and probes == built_in_probes()
    for probe in probes:
        assert probe.grades is not None and len(probe.grades) == len(probe.documents)
        assert max(probe.grades) == 3 and 0 in probe.grades
        assert len(set(probe.documents)) == len(probe.documents)
    lengths = [len(text.split()) for text in generated_texts(50)]
    assert min(lengths) < 3 and max(lengths) > 100
    assert all(pair.first != pair.second for pair in preferences())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no pairs"),
        (b'\n{"documents": ["a"]}\n', "Line 2 of .* has no query"),
        (b'{"query": "q", "documents": "a"}', "no list of documents"),
        (b'{"query": "q", "documents": []}', "empty list"),
        (b'{"query": "q", "documents": ["a"], "grades": [1, 2]}', "2 grades for 1 documents"),
        (b'{"query": "q", "documents": ["a"], "grades": ["x"]}', "no whole numbers"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_bad_file_of_pairs_is_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_probes(path)


def test_own_pairs_without_grades_leave_ndcg_out(good: Reranker, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    row = {"query": "tea", "documents": ["green tea", "a violin", "black", "two cups of tea"]}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    report = run_parity(good, good, probes=read_probes(path))
    assert {check.name: check.passed for check in report.checks}["ndcg"] is None
    assert report.passed, report.as_text()
