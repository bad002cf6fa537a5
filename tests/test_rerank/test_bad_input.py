"""What cannot be scored, over every kind of local model: one named error with a sentence that says
what to do, and the same model scores the next request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rerank.errors import BadInput, DeviceError, ModelNotFound, RerankError, WrongModel
from rerank.inference.loading import load_reranker
from rerank.types import BatchReranker, RerankRequest

from .tiny import save_cross_encoder, save_headless
from .tiny_models import save_late_interaction, save_one_zero, save_yes_no
from .tiny_qwen import decoder, save_modules

GOOD = RerankRequest("how do I stew apples?", ["Boil the apples.", "Cats don't care."])
NOT_UNICODE = "half of a pair: \ud83d"
# Generous: this runs beside other work; minutes are what must not happen.
SECONDS = 10


def save_zerank(directory: Path) -> Path:
    return save_modules(decoder(), directory)


SAVE: dict[str, Callable[[Path], Path]] = {
    "zerank": save_zerank,
    "cross-encoder": save_cross_encoder,
    "yes or no": save_yes_no,
    "one or zero": save_one_zero,
    "late interaction": save_late_interaction,
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BatchReranker]:
    models = {"built in": load_reranker("", "cpu")}
    for kind, save in SAVE.items():
        models[kind] = load_reranker(str(save(tmp_path_factory.mktemp("model"))), "cpu")
    return cast(dict[str, BatchReranker], models)


@pytest.fixture(params=["built in", *SAVE])
def model(request: pytest.FixtureRequest, loaded: dict[str, BatchReranker]) -> BatchReranker:
    return loaded[request.param]


def still_scores(model: BatchReranker) -> bool:
    return bool(np.isfinite(model.score(GOOD).logits).all())


# texts that are none: what is asked -> the sentence's beginning
NO_TEXTS: list[tuple[Any, str]] = [
    (("q", ["a", b"bytes"]), "Document 2 is bytes, not text. Decode it"),
    (("q", ["a", "b", NOT_UNICODE]), "Document 3 is no valid Unicode text: character 17"),
    (("q", [None, "b"]), "Document 1 is no text but NoneType. Send a string."),
    (("q", ["a", 7]), "Document 2 is no text but int"),
    ((NOT_UNICODE, ["a"]), "The query is no valid Unicode text"),
    ((b"q", ["a"]), "The query is bytes"),
    ((None, ["a"]), "The query is no text"),
    (("q", ["a"], NOT_UNICODE), "The instruction is no valid Unicode text"),
    (("q", ["a"], b"prefer apples"), "The instruction is bytes"),
]


@pytest.mark.parametrize(("asked", "sentence"), NO_TEXTS)
def test_what_is_no_text_is_named_by_its_place(
    model: BatchReranker, asked: Any, sentence: str
) -> None:
    with pytest.raises(BadInput) as caught:
        model.score(RerankRequest(*asked))
    assert str(caught.value).startswith(sentence)
    assert still_scores(model)


def test_a_query_without_room_for_a_document_is_refused(model: BatchReranker) -> None:
    for request in (
        RerankRequest("apples " * 5000, ["a"]),
        RerankRequest("apples", ["a"], "prefer soups " * 5000),
    ):
        with pytest.raises(BadInput, match="query and its instruction"):
            model.score(request)
    assert still_scores(model)


def test_empty_texts_and_odd_characters_are_scored(model: BatchReranker) -> None:
    texts = [
        "",
        " ",
        "\n\n",
        "\x00\x01",
        "\ufeff",
        "\u200b\u202e",
        "🙂" * 9,
        "e\u0301" * 9,
        "\ue0a1",
    ]
    for query in ("", " ", "\x00", "apples"):
        scores = model.score(RerankRequest(query, texts))
        assert np.isfinite(scores.logits).all() and scores.truncated == 0
        assert ((scores.relevance >= 0) & (scores.relevance <= 1)).all()
    assert model.score(RerankRequest("", [])).logits.shape == (0,)


@pytest.mark.parametrize("unit", ["apples, and pears. ", "你好世界", "a", " ", ".", "🙂"])
def test_a_document_of_ten_megabytes_takes_seconds(model: BatchReranker, unit: str) -> None:
    long = unit * (10_000_000 // len(unit.encode()))
    started = time.perf_counter()
    scores = model.score(RerankRequest("apples", ["apples"] * 9 + [long]))
    assert time.perf_counter() - started < SECONDS
    # zerank strips a text of blanks to nothing.
    assert scores.truncated == 1 or not long.strip()
    alone = model.score(RerankRequest("apples", ["apples"])).logits[0]
    assert np.allclose(scores.logits[:9], alone, atol=0.1)


def test_ten_thousand_documents_are_scored(loaded: dict[str, BatchReranker]) -> None:
    for kind in ("cross-encoder", "late interaction"):
        scores = loaded[kind].score(RerankRequest("apples", ["apples", "pears"] * 5000))
        assert scores.logits.shape == (10_000,)
        assert np.isfinite(scores.logits).all()


def test_memory_that_runs_out_is_said_so_and_passes(
    model: BatchReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", full)
        patch.setattr(torch.nn.functional, "layer_norm", full)
        patch.setattr(torch.nn.functional, "embedding", full)
        with pytest.raises(DeviceError, match="smaller model"):
            model.score(GOOD)
    assert still_scores(model)


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    for save in SAVE.values():
        directory = save(tmp_path / save.__name__)
        with pytest.raises(DeviceError, match="cuda:99"):
            load_reranker(str(directory), "cuda:99")


def _without_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def _half_the_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _without_tokenizer(directory: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (directory / name).unlink(missing_ok=True)


def _without_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def _broken_config(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def _no_numbers(directory: Path) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    last = sorted(weights)[-1]
    weights[last] = torch.full_like(weights[last], float("nan"))
    save_file(weights, path, metadata={"format": "pt"})


def _other_sizes(directory: Path) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 80}))


DAMAGE: list[tuple[Callable[[Path], None], type[RerankError]]] = [
    (_without_weights, ModelNotFound),
    (_half_the_weights, ModelNotFound),
    (_without_tokenizer, ModelNotFound),
    (_without_config, ModelNotFound),
    (_broken_config, ModelNotFound),
    (_no_numbers, WrongModel),
    (_other_sizes, WrongModel),
]


@pytest.mark.parametrize("kind", list(SAVE))
@pytest.mark.parametrize(("damage", "error"), DAMAGE)
def test_damaged_files_end_in_one_named_error(
    tmp_path: Path, kind: str, damage: Callable[[Path], None], error: type[RerankError]
) -> None:
    directory = SAVE[kind](tmp_path)
    damage(directory)
    with pytest.raises(error) as caught:
        load_reranker(str(directory), "cpu")
    assert any(advice in str(caught.value) for advice in ("ownload", "belong together", "fit"))


def test_checkpoints_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    bare = save_modules(decoder(), tmp_path / "language-model")
    (bare / "modules.json").unlink()
    headless = save_headless(tmp_path / "encoder")
    for name in (str(bare), str(headless), "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(WrongModel, match=r"Choose|Check"):
            load_reranker(name, "cpu")
