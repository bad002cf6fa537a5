"""The built-in reranker on the real built-in weights, untrained and with trained weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rerank.errors import BadInput, ModelNotFound, WrongModel
from rerank.inference.fused_files import CONFIG, IMPORTANCE, WEIGHTS, fused_files, untrained
from rerank.inference.fused_head import built_in_head
from rerank.inference.fused_maxsim import FusedMaxSim, KeptVectors, latin_share, token_weights
from rerank.inference.loading import load_reranker
from rerank.training.bases import open_base, score_rows
from rerank.training.fused_maxsim_base import FusedMaxSimBase
from rerank.types import RerankRequest

CPU = torch.device("cpu")
QUERY = "how often should I water tomatoes"
DOCUMENTS = [
    "Tomato plants want water every morning in a dry summer.",
    "The violin has four strings.",
    "",
    "Tomatoes. " + "Soil and light matter as well. " * 30,
    "Wasser",
]
PRIORS = [0.9, 0.1, 0.0, 0.5, 0.3]


@pytest.fixture(scope="module")
def reranker() -> FusedMaxSim:
    return FusedMaxSim(untrained(), CPU, torch.float32)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FusedMaxSimBase, Path]:
    """A base whose weights moved as training moves them, and where it was saved."""
    base = open_base("untrained", device="cpu")
    assert isinstance(base, FusedMaxSimBase)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in base.module.named_parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn_like(weight) * (1 if weight.dim() > 1 else 5)
            else:
                assert (
                    "layer.0." in name
                    or "layer.1." in name
                    or "layer.2." in name
                    or ("embeddings" in name)
                )
    directory = tmp_path_factory.mktemp("models") / "mini"
    base.save(directory)
    return base, directory


def test_a_fitting_passage_scores_above_an_unrelated_one(reranker: FusedMaxSim) -> None:
    scores = reranker.score(RerankRequest(QUERY, DOCUMENTS))
    assert scores.logits[0] > scores.logits[1] > scores.logits[2]
    assert scores.scale == "untrained"
    assert ((scores.relevance > 0) & (scores.relevance < 1)).all()


def test_batched_equals_one_by_one_in_the_order_given(reranker: FusedMaxSim) -> None:
    together = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    alone = [reranker.score(RerankRequest(QUERY, [d])).logits[0] for d in DOCUMENTS]
    assert np.allclose(together, alone, atol=1e-4)
    backward = reranker.score(RerankRequest(QUERY, DOCUMENTS[::-1])).logits[::-1]
    assert np.allclose(together, backward, atol=1e-4)


def test_the_score_by_hand(reranker: FusedMaxSim) -> None:
    """Against the plain encoder's token vectors: mean over query tokens of the best cosine."""
    rows = [
        reranker._reader.question(QUERY, None).ids,
        *(ids for ids, _ in reranker._reader.documents(DOCUMENTS[:1])),
    ]
    query, document = (_unit_hidden(reranker, ids) for ids in rows)
    match = (query[1:-1] @ document[1:-1].T).max(axis=1).mean()
    score = reranker.score(RerankRequest(QUERY, DOCUMENTS[:1], None, [0.4])).logits[0]
    head = built_in_head()
    expected = head.prior * 0.4 + head.match * match + head.bias
    assert score == pytest.approx(expected, abs=5e-3)


def _unit_hidden(reranker: FusedMaxSim, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        hidden = reranker._model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    return np.asarray(hidden / np.linalg.norm(hidden, axis=1, keepdims=True))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_a_higher_prior_adds_its_part(reranker: FusedMaxSim, priors: list[float]) -> None:
    none = reranker.score(RerankRequest(QUERY, DOCUMENTS[:2], None, [0.0, 0.0])).logits
    with_priors = reranker.score(RerankRequest(QUERY, DOCUMENTS[:2], None, priors)).logits
    assert np.allclose(with_priors - none, built_in_head().prior * np.array(priors), atol=1e-3)


def test_documents_read_before_score_the_same_and_are_not_read_again(
    reranker: FusedMaxSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = FusedMaxSim(untrained(), CPU, torch.float32)
    first = fresh.score(RerankRequest(QUERY, DOCUMENTS, None, PRIORS)).logits

    def refuse(rows: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(fresh, "_documents", refuse)
    again = fresh.score(RerankRequest(QUERY, DOCUMENTS, None, PRIORS)).logits
    assert np.array_equal(first, again)
    assert np.allclose(first, reranker.score(RerankRequest(QUERY, DOCUMENTS, None, PRIORS)).logits)


def test_kept_vectors_stay_within_their_bytes() -> None:
    kept = KeptVectors(3 * 3000)
    for number in range(5):
        kept.add((number,) * 10, torch.zeros(10, 128).half())
        if number == 2:
            kept.get((0,) * 10)
    assert [kept.get((number,) * 10) is not None for number in range(5)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    kept.add((9,) * 10, torch.zeros(1000, 128).half())
    assert kept.get((9,) * 10) is None


def test_without_priors_the_order_is_that_of_the_matches(reranker: FusedMaxSim) -> None:
    read = reranker.read_documents(DOCUMENTS)
    matches = reranker.match(QUERY, "", read)
    logits = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    assert np.array_equal(np.argsort(-matches), np.argsort(-logits))


def test_matches_in_other_scripts_are_trusted_by_their_share(reranker: FusedMaxSim) -> None:
    assert latin_share("Grüße, ağaç, Tiếng Việt 12") == 1.0
    assert latin_share("トマト") == 0.0
    assert latin_share("2 + 2 = ?") == 1.0
    assert latin_share("abcШ") == 0.75
    documents = ["トマトの水やり", "バイオリン"]
    logits = reranker.score(RerankRequest("トマト", documents, None, [0.5, 0.5])).logits
    assert logits[0] == logits[1]
    alone = reranker.score(RerankRequest("トマト", documents)).logits
    assert alone[0] != alone[1]


def test_tokens_that_lie_towards_the_importance_count_more() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    shares = np.array([0.5, 0.5], dtype=np.float32)
    assert token_weights(vectors, shares, torch.zeros(2)).tolist() == [0.5, 0.5]
    raised = token_weights(vectors, shares, torch.tensor([np.log(3.0), 0.0]))
    assert raised.tolist() == pytest.approx([0.75, 0.25])


def test_the_instruction_changes_scores_and_none_does_not(reranker: FusedMaxSim) -> None:
    plain = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    told = reranker.score(RerankRequest(QUERY, DOCUMENTS, "prefer vegetables " * 20)).logits
    assert not np.allclose(plain, told)
    assert told[0] > told[1]
    assert np.array_equal(plain, reranker.score(RerankRequest(QUERY, DOCUMENTS, "")).logits)


def test_long_documents_are_cut_and_counted_and_long_queries_refused(
    reranker: FusedMaxSim,
) -> None:
    scores = reranker.score(RerankRequest(QUERY, ["word " * 1000, "word"]))
    assert scores.truncated == 1
    with pytest.raises(BadInput, match="600 tokens"):
        reranker.score(RerankRequest("word " * 600, ["a"]))


def test_priors_must_match_the_documents(reranker: FusedMaxSim) -> None:
    with pytest.raises(BadInput):
        reranker.score(RerankRequest(QUERY, ["a", "b"], None, [0.5]))


def test_nothing_to_score(reranker: FusedMaxSim) -> None:
    assert reranker.score(RerankRequest(QUERY, [])).logits.shape == (0,)
    assert np.isfinite(reranker.score(RerankRequest("", ["a"])).logits).all()


def test_separators_in_texts_are_text(reranker: FusedMaxSim) -> None:
    row = reranker.prepare(RerankRequest("q", ["a [SEP] b"])).rows[0]
    assert row.count(row[-1]) == 1


@pytest.mark.parametrize("instruction", ["", "Prefer what a gardener wrote."])
@pytest.mark.parametrize("priors", [None, PRIORS])
def test_training_reads_what_serving_reads(
    changed: tuple[FusedMaxSimBase, Path], instruction: str, priors: list[float] | None
) -> None:
    base, directory = changed
    trained = score_rows(base, base.rows(QUERY, instruction, DOCUMENTS, priors))
    served = load_reranker(str(directory), "cpu", "float32")
    scores = served.score(RerankRequest(QUERY, DOCUMENTS, instruction, priors))
    # Float16 in the file and bfloat16 between the layers in training.
    assert np.allclose(scores.logits, trained, atol=0.02)
    assert scores.scale == "sigmoid"


def test_only_the_difference_to_the_base_is_saved(changed: tuple[FusedMaxSimBase, Path]) -> None:
    weights = load_file(str(changed[1] / WEIGHTS))
    layers = {name.split(".")[2] for name in weights if name != IMPORTANCE}
    assert layers == {"3", "4", "5"}
    assert (changed[1] / WEIGHTS).stat().st_size < 25_000_000


def test_training_goes_on_from_a_trained_model(changed: tuple[FusedMaxSimBase, Path]) -> None:
    base, directory = changed
    again = open_base(str(directory), device="cpu")
    rows = base.rows(QUERY, "", DOCUMENTS, PRIORS)
    assert np.allclose(score_rows(again, rows), score_rows(base, rows), atol=0.02)


def test_a_model_of_another_base_is_refused(
    changed: tuple[FusedMaxSimBase, Path], tmp_path: Path
) -> None:
    config = json.loads((changed[1] / CONFIG).read_text(encoding="utf-8"))
    config["base_weights"] = "0" * 16
    (tmp_path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / WEIGHTS).write_bytes((changed[1] / WEIGHTS).read_bytes())
    with pytest.raises(WrongModel, match="other weights of its base"):
        load_reranker(str(tmp_path), "cpu", "float32")


def test_broken_files_are_named(changed: tuple[FusedMaxSimBase, Path], tmp_path: Path) -> None:
    config = json.loads((changed[1] / CONFIG).read_text(encoding="utf-8"))
    (tmp_path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelNotFound, match=WEIGHTS):
        load_reranker(str(tmp_path), "cpu", "float32")
    save_file({"encoder.layer.9.weight": torch.zeros(1)}, str(tmp_path / WEIGHTS))
    with pytest.raises(WrongModel, match="do not fit"):
        load_reranker(str(tmp_path), "cpu", "float32")
    del config["head"]
    (tmp_path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(WrongModel, match="broken"):
        fused_files("mini", tmp_path)
