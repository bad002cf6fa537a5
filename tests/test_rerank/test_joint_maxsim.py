"""The untrained baseline on the real built-in weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank.errors import BadInput
from rerank.inference.joint_maxsim import WEIGHT, JointMaxSim
from rerank.inference.models import embedder_facts
from rerank.types import RerankRequest

QUERY = "how often should I water tomatoes"
DOCUMENTS = [
    "Tomato plants want water every morning in a dry summer.",
    "The violin has four strings.",
    "",
    "Tomatoes. " + "Soil and light matter as well. " * 30,
    "Wasser",
]


@pytest.fixture(scope="module")
def reranker() -> JointMaxSim:
    return JointMaxSim(embedder_facts(""), torch.device("cpu"), torch.float32)


def test_a_fitting_passage_scores_above_an_unrelated_one(reranker: JointMaxSim) -> None:
    scores = reranker.score(RerankRequest(QUERY, DOCUMENTS))
    assert scores.logits[0] > scores.logits[1] > scores.logits[2] == 0.0
    assert scores.scale == "untrained"
    assert ((scores.relevance >= 0) & (scores.relevance <= 1)).all()


def test_batched_equals_one_by_one_in_the_order_given(reranker: JointMaxSim) -> None:
    together = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    alone = [reranker.score(RerankRequest(QUERY, [d])).logits[0] for d in DOCUMENTS]
    assert np.allclose(together, alone, atol=1e-5)
    backward = reranker.score(RerankRequest(QUERY, DOCUMENTS[::-1])).logits[::-1]
    assert np.allclose(together, backward, atol=1e-5)


def test_the_score_by_hand(reranker: JointMaxSim) -> None:
    """Against the model's own token vectors: mean over query tokens of the best cosine."""
    query, document = reranker._encode([QUERY, DOCUMENTS[0]])
    ids = torch.tensor([[101, *query, 102, *document, 102]])
    with torch.inference_mode():
        hidden = reranker._model(input_ids=ids).last_hidden_state[0].numpy()
    hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
    asked = hidden[1 : 1 + len(query)]
    answered = hidden[len(query) + 2 : -1]
    expected = (asked @ answered.T).max(axis=1).mean()
    score = reranker.score(RerankRequest(QUERY, DOCUMENTS[:1])).logits[0]
    assert score == pytest.approx(expected, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_the_prior_is_blended_at_the_small_weight(
    reranker: JointMaxSim, priors: list[float]
) -> None:
    alone = reranker.score(RerankRequest(QUERY, DOCUMENTS[:2])).logits
    blended = reranker.score(RerankRequest(QUERY, DOCUMENTS[:2], None, priors)).logits
    expected = (1 - WEIGHT) * np.array(priors) + WEIGHT * alone
    assert np.allclose(blended, expected, atol=1e-5)


def test_the_instruction_counts_its_share_however_long(reranker: JointMaxSim) -> None:
    plain = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    told = reranker.score(RerankRequest(QUERY, DOCUMENTS, "prefer vegetables " * 20)).logits
    assert not np.allclose(plain, told)
    assert told[0] > told[1]
    assert np.array_equal(plain, reranker.score(RerankRequest(QUERY, DOCUMENTS, "")).logits)


def test_long_documents_are_cut_and_counted_and_long_queries_refused(
    reranker: JointMaxSim,
) -> None:
    scores = reranker.score(RerankRequest(QUERY, ["word " * 1000, "word"]))
    assert scores.truncated == 1
    query = "tomato " * 300
    assert reranker.score(RerankRequest(query, DOCUMENTS)).logits[0] > 0
    with pytest.raises(BadInput, match="600 tokens"):
        reranker.score(RerankRequest("word " * 600, ["a"]))


def test_priors_must_match_the_documents(reranker: JointMaxSim) -> None:
    with pytest.raises(BadInput):
        reranker.score(RerankRequest(QUERY, ["a", "b"], None, [0.5]))


def test_nothing_to_score(reranker: JointMaxSim) -> None:
    assert reranker.score(RerankRequest(QUERY, [])).logits.shape == (0,)
    assert reranker.score(RerankRequest("", ["a"])).logits.tolist() == [0.0]


def test_separators_in_texts_are_text(reranker: JointMaxSim) -> None:
    row = reranker.prepare(RerankRequest("q", ["a [SEP] b"])).rows[0]
    assert row.count(reranker._sep) == 2
