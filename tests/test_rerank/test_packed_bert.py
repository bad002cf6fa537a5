"""BERT-type models without padding, against their own forward pass: tiny ones, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from rerank.inference import packed_bert
from rerank.inference.cross_encoder import CrossEncoderReranker
from rerank.inference.packed_bert import even_groups, packed_encoder, packed_scorer
from rerank.types import RerankRequest

from .tiny import save_cross_encoder

CPU = torch.device("cpu")
COMMON: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 202,
    "initializer_range": 0.3,
    "num_labels": 1,
}
DISTILLED = {
    "vocab_size": 500,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": 202,
    "initializer_range": 0.3,
    "num_labels": 1,
}
MAKERS: dict[str, Any] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**COMMON)),
    "bert with a tanh gelu": lambda: BertForSequenceClassification(
        BertConfig(**COMMON, hidden_act="gelu_new")
    ),
    "bert with relu": lambda: BertForSequenceClassification(
        BertConfig(**COMMON, hidden_act="relu")
    ),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**COMMON)),
    "xlm-roberta": lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**COMMON)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**COMMON, embedding_size=16)),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTILLED)),
}


def made(name: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(7)
    return MAKERS[name]().to(dtype).eval()


def rows_of(lengths: list[int], seed: int = 3) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids (some of them what another model takes for padding) and type ids."""
    chance = np.random.default_rng(seed)
    rows = [chance.integers(0, 500, size=length).tolist() for length in lengths]
    return rows, [[0] * (len(row) // 3) + [1] * (len(row) - len(row) // 3) for row in rows]


@torch.inference_mode()
def plain(model: Any, row: list[int], types: list[int]) -> float:
    inputs = {"input_ids": torch.tensor([row])}
    if getattr(model.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = torch.tensor([types])
    return float(model(**inputs).logits)


@pytest.mark.parametrize("name", MAKERS)
def test_logits_equal_the_models_own_forward_pass(name: str) -> None:
    model = made(name)
    rows, types = rows_of([1, 2, 17, 100, 150, 198, 3])
    if model.config.model_type in {"roberta", "xlm-roberta"}:
        types = [[0] * len(row) for row in rows]
    expected = [plain(model, row, kinds) for row, kinds in zip(rows, types, strict=True)]
    scorer = packed_scorer(model)
    assert scorer is not None
    assert np.allclose(scorer(rows, types), expected, atol=1e-4)
    assert np.std(expected) > 0.01, "the tiny model tells these rows apart"


def test_bfloat16_is_close_to_float32() -> None:
    rows, types = rows_of([5, 60, 120])
    exact, rounded = packed_scorer(made("bert")), packed_scorer(made("bert", torch.bfloat16))
    assert exact is not None
    assert rounded is not None
    assert np.allclose(rounded(rows, types), exact(rows, types), atol=0.1)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_scores_the_same_in_any_company_and_order(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_bert, "CHUNK_TOKENS", 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    scorer = packed_scorer(made("bert"))
    assert scorer is not None
    rows, types = rows_of([40, 7, 7, 120, 64, 3, 33])
    together = scorer(rows, types)
    alone = [scorer([row], [kinds])[0] for row, kinds in zip(rows, types, strict=True)]
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(scorer(rows[::-1], types[::-1])[::-1], together, atol=1e-5)


def test_threads_of_the_scorer_leave_the_number_of_others_alone() -> None:
    before = torch.get_num_threads()
    packed_bert._threads_of_their_own(2).shutdown()
    assert torch.get_num_threads() == before


def test_all_hidden_states_equal_the_bodys() -> None:
    torch.manual_seed(7)
    body = BertModel(BertConfig(**COMMON), add_pooling_layer=False).eval()
    encoder = packed_encoder(body)
    assert encoder is not None
    rows, _ = rows_of([9, 130, 1])
    with torch.inference_mode():
        expected = torch.cat([body(input_ids=torch.tensor([r])).last_hidden_state[0] for r in rows])
        assert torch.allclose(encoder.hidden(rows), expected, atol=1e-4)


def test_without_the_processors_kernels_logits_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, types = rows_of([5, 150])
    packed = packed_scorer(made("bert"))
    monkeypatch.setattr(packed_bert, "_has_kernels", lambda dtype: False)
    portable = packed_scorer(made("bert"))
    assert packed is not None
    assert portable is not None
    assert np.allclose(portable(rows, types), packed(rows, types), atol=1e-4)


def test_other_architectures_and_formats_keep_their_own_forward_pass() -> None:
    assert packed_scorer(MPNetForSequenceClassification(MPNetConfig(**COMMON)).eval()) is None
    assert packed_scorer(made("bert", torch.float16)) is None
    two = BertForSequenceClassification(BertConfig(**{**COMMON, "num_labels": 2})).eval()
    assert packed_scorer(two) is None


def test_a_model_that_computes_something_else_is_refused_whole() -> None:
    model = made("bert")
    model.bert.encoder.layer[1].output.register_forward_hook(lambda m, i, output: output * 1.1)
    assert packed_scorer(model) is None
    assert len(model.bert.encoder.layer) == 3


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = made("bert")
    model.classifier.weight.data[:] = float("nan")
    assert packed_scorer(model) is None


def test_the_reranker_takes_the_packed_path_and_says_so(tmp_path: Path) -> None:
    directory = save_cross_encoder(tmp_path)
    reranker = CrossEncoderReranker("tiny", directory, CPU, torch.float32)
    assert reranker.card.revision.endswith("-packed")
    documents = ["cats", "", "dogs and " * 30]
    scores = reranker.score(RerankRequest("pets", documents))
    again = [reranker.score(RerankRequest("pets", [d])).logits[0] for d in documents]
    assert np.allclose(scores.logits, again, atol=1e-5)


def test_groups_are_even_and_hold_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_bert, "CHUNK_TOKENS", 1024)
    lengths = [300, 20, 150, 280, 90, 500, 33, 61, 20, 700]
    groups = even_groups(lengths, 2)
    assert sorted(place for group in groups for place in group) == list(range(10))
    sizes = [sum(lengths[place] for place in group) for group in groups]
    assert len(groups) % 2 == 0
    assert sorted(sizes) == [471, 483, 500, 700]
    assert even_groups([5], 4) == [[0]]
    assert even_groups([], 4) == []
