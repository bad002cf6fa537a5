"""`from rerank import load` with the built-in model and with a directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank import Model, load
from rerank.errors import BadInput, DeviceError, ModelNotFound
from rerank.types import ModelCard, RerankRequest, RerankScores

from .tiny import save_cross_encoder

DOCUMENTS = [
    "The violin has four strings tuned in fifths.",
    {"id": 7, "text": "Water the tomato plants each morning."},
    "A bicycle chain wants oil.",
]


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


class Constant:
    """Every document alike, to see where ties fall."""

    card = ModelCard("constant", "", "CPU", "float32")

    def score(self, request: RerankRequest) -> RerankScores:
        values = np.full(len(request.documents), 0.5, dtype=np.float32)
        return RerankScores(values, values, "sigmoid")


def test_results_hold_the_given_objects_best_first(model: Model) -> None:
    ranked = model.rank("when to water tomatoes", DOCUMENTS)
    assert ranked[0].document is DOCUMENTS[1] and ranked[0].index == 1
    assert [result.rank for result in ranked] == [1, 2, 3]
    assert sorted(result.index for result in ranked) == [0, 1, 2]
    assert [result.logit for result in ranked] == sorted(
        (result.logit for result in ranked), reverse=True
    )
    assert all(0 <= result.relevance <= 1 for result in ranked)


def test_top_k_keeps_the_best_and_an_instruction_is_heard(model: Model) -> None:
    whole = model.rank("four strings", DOCUMENTS)
    assert model.rank("four strings", DOCUMENTS, top_k=1) == whole[:1]
    assert model.rank("four strings", DOCUMENTS, top_k=99) == whole
    told = model.rank("four strings", DOCUMENTS, instruction="Bicycles only.")
    assert {r.index: r.logit for r in told} != {r.index: r.logit for r in whole}
    assert model.rank("four strings", DOCUMENTS, instruction=" ") == whole
    assert model.rank("four strings", []) == []


def test_ties_keep_the_order_given() -> None:
    ranked = Model(Constant()).rank("q", ["c", "a", "b", "a"])
    assert [result.index for result in ranked] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (["fine", 3], {}, "Document 2 must be text, not int"),
        (["fine", b"bytes"], {}, "Document 2 is bytes; decode it first"),
        ([{"title": "x"}], {}, 'Document 1 has no "text"'),
        ([{"text": None}], {}, 'The "text" of document 1 must be text'),
        ("one text", {}, "must be a list of texts"),
        (["fine"], {"top_k": 0}, "top_k is 0; it must be at least 1"),
        (["fine"], {"top_k": "3"}, "top_k is '3'"),
        (["fine"], {"instruction": 4}, "The instruction must be text"),
    ],
)
def test_what_cannot_be_ranked_is_a_sentence(
    documents: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        Model(Constant()).rank("q", documents, **options)


def test_a_query_that_is_no_text_is_a_sentence() -> None:
    with pytest.raises(BadInput, match="The query must be text, not NoneType"):
        Model(Constant()).rank(None, ["a"])  # type: ignore[arg-type]


def test_a_directory_and_a_device_by_name(tmp_path: Path) -> None:
    model = load(str(save_cross_encoder(tmp_path / "tiny")), device="cpu")
    assert len(model.rank("q", ["a", "b"])) == 2
    assert model.card.device.startswith("CPU")
    with pytest.raises(ModelNotFound, match="no directory"):
        load("/nowhere/at/all")
    with pytest.raises(DeviceError, match="no kind of device"):
        load(device="abacus")


def test_neither_library_nor_gate_nor_commands_import_torch_before_a_model_is_asked_for() -> None:
    code = (
        "import sys, rerank, rerank.__main__, rerank.parity.gate, rerank.evaluation.evaluate; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
