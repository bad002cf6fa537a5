"""A model serves only after its checks, and a failed one says why."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rerank.inference.zerank import ZerankReranker
from rerank.types import FloatArray, ModelCard, Prepared, RerankScores
from searchapp.engine import gate, local
from searchapp.engine.sockets import RerankJob
from tests.test_rerank.tiny_qwen import decoder, save_modules


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_modules(decoder(), tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def one_thread_and_nothing_loaded(
    settings: Any, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings.RERANK_MODEL = str(directory)
    settings.DEVICE = "cpu"
    settings.RERANK_DTYPE = "float32"
    settings.VAR_DIR = tmp_path
    monkeypatch.setattr(local, "_models", {})
    monkeypatch.setattr(local, "_refused", {})
    yield
    torch.set_num_threads(threads)


class LaterIsBetter(ZerankReranker):
    """Its scores depend on the place in the list."""

    def finish(self, prepared: Prepared, raw: FloatArray) -> RerankScores:
        return super().finish(prepared, raw + np.arange(len(raw), dtype=np.float32))


class Reversed(ZerankReranker):
    """Sound in itself, but not what the model gives."""

    def run(self, rows: Any) -> FloatArray:
        return -super().run(rows)


def turned_into(kind: type[ZerankReranker]) -> None:
    """Of the model that is loaded."""
    model: Any = local.load_reranker()
    model.__class__ = kind


def report_of(card: ModelCard) -> dict[str, Any]:
    return dict(json.loads(gate.report_path(card).read_text()))


def test_a_sound_model_is_admitted_and_not_asked_a_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = gate.admit()
    assert card.dtype == "float32" and not gate.needs_reference(card)
    assert report_of(card)["passed"] and report_of(card)["reference"] is None
    turned_into(LaterIsBetter)
    started = time.perf_counter()
    assert gate.admit() == card
    assert time.perf_counter() - started < 2
    # What cannot be read is asked for again, and what changed has no report yet.
    gate.report_path(card).write_text("{}")
    with pytest.raises(local.ModelRefused):
        gate.admit()
    assert gate.report_path(replace(card, revision="new")) != gate.report_path(card)
    assert gate.report_path(replace(card, device="other")) != gate.report_path(card)


def test_a_model_that_fails_answers_every_job_with_the_check_it_failed() -> None:
    turned_into(LaterIsBetter)
    with pytest.raises(local.ModelRefused, match="failed a check and does not serve") as caught:
        gate.admit()
    outcome = local.rerank(RerankJob("q", "", [1], [0.5], time.time() + 9))
    assert (outcome.status, outcome.code) == ("unavailable", "no-model")
    assert outcome.reason == str(caught.value) and "order" in outcome.reason
    assert not report_of(local.load_reranker().card)["passed"]


def test_another_number_format_is_held_against_float32(settings: Any) -> None:
    settings.RERANK_DTYPE = "bfloat16"
    turned_into(Reversed)
    card = local.load_reranker().card
    assert gate.needs_reference(card)
    with pytest.raises(local.ModelRefused, match="tau"):
        gate.admit()
    assert report_of(card)["reference"]["dtype"] == "float32"


def test_the_built_in_baseline_needs_no_reference_in_any_format(settings: Any) -> None:
    settings.RERANK_MODEL = ""
    settings.RERANK_DTYPE = "auto"
    card = gate.admit()
    assert report_of(card)["passed"] and report_of(card)["reference"] is None


def test_a_model_within_a_cascade_owes_the_same_checks(
    settings: Any, directory: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "cascade.toml"
    stages = f'[[stage]]\nmodel = "untrained"\nkeep = 5\n[[stage]]\nmodel = "{directory}"\n'
    recipe.write_text(f'kind = "cascade"\n{stages}')
    settings.RERANK_MODEL = str(recipe)
    cascade: Any = local.load_reranker()
    first, second = cascade.rerankers
    second._model.__class__ = LaterIsBetter
    with pytest.raises(local.ModelRefused, match="order"):
        gate.admit()
    assert report_of(first.card)["passed"] and not report_of(second.card)["passed"]
    second._model.__class__ = ZerankReranker
    assert gate.admit() == cascade.card
