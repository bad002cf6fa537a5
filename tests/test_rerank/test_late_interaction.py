"""Late-interaction checkpoints: tiny ones in PyLate's, sentence-transformers' and Stanford's
layout."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from tokenizers import Tokenizer
from transformers import BertModel

from rerank.errors import BadInput, ModelNotFound, WrongModel
from rerank.inference.late_interaction import LateInteractionReranker, is_late_interaction
from rerank.inference.loading import load_reranker
from rerank.types import FloatArray, RerankRequest

from .tiny import save_cross_encoder
from .tiny_models import save_late_interaction

CPU = torch.device("cpu")
QUERY = "stewing apples, how?"
DOCUMENTS = [
    "Boil the apples, then stir.",
    "",
    "cats and dogs!",
    "... --- ...",
    "Schöne Grüße aus Köln, 世界",
    "apples " * 200,
]


def load(directory: Path) -> LateInteractionReranker:
    return LateInteractionReranker("tiny", directory, CPU, torch.float32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_late_interaction(tmp_path_factory.mktemp("late"))


@pytest.fixture(scope="module")
def reranker(directory: Path) -> LateInteractionReranker:
    return load(directory)


def by_hand(
    directory: Path,
    query: str,
    documents: list[str],
    prefixes: tuple[str, str] = ("[unused0]", "[unused1]"),
) -> FloatArray:
    """MaxSim from the files alone: transformers' BERT, the projection, one pair after another."""
    body = BertModel.from_pretrained(directory, add_pooling_layer=False).eval()
    projection = load_file(directory / "1_Dense" / "model.safetensors")["linear.weight"]
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    number = tokenizer.token_to_id
    punctuation = {number(each) for each in string.punctuation}

    def vectors(ids: list[int], mask: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            hidden = body(torch.tensor([ids]), torch.tensor([mask])).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden @ projection.T, dim=-1)

    def ids_of(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    asked = [number("[CLS]"), number(prefixes[0]), *ids_of(query), number("[SEP]")]
    masks = max(0, 16 - len(asked))
    q = vectors(asked + [number("[MASK]")] * masks, [1] * len(asked) + [0] * masks)
    scores = []
    for document in documents:
        ids = [number("[CLS]"), number(prefixes[1]), *ids_of(document)[:37], number("[SEP]")]
        d = vectors(ids, [1] * len(ids))
        kept = d[[token not in punctuation for token in ids]]
        scores.append(sum(max(float(a @ b) for b in kept) for a in q))
    return np.array(scores, dtype=np.float32)


def test_scores_equal_a_plain_loop(reranker: LateInteractionReranker, directory: Path) -> None:
    scores = reranker.score(RerankRequest(QUERY, DOCUMENTS))
    assert np.allclose(scores.logits, by_hand(directory, QUERY, DOCUMENTS), atol=1e-4)
    assert np.allclose(scores.relevance, np.clip(scores.logits / 16, 0, 1), atol=1e-6)
    assert (scores.scale, scores.truncated) == ("cosine", 1)


def test_prefixes_with_tokens_of_their_own_are_those_tokens(tmp_path: Path) -> None:
    own = ("[Q] ", "[D] ")
    save_late_interaction(tmp_path, own, query_prefix=own[0], document_prefix=own[1])
    scores = load(tmp_path).score(RerankRequest(QUERY, DOCUMENTS))
    assert np.allclose(scores.logits, by_hand(tmp_path, QUERY, DOCUMENTS, own), atol=1e-4)
    written = load(tmp_path).prepare(RerankRequest("[Q] [D] ", ["[Q] [D] "]))
    for ids in (written.shared.ids, written.rows[0]):
        assert sum(token >= 30522 for token in ids) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_query_expansion": False},
        {"attend_to_expansion_tokens": True},
        {"skiplist_words": []},
        {"query_prefix": "[Q] ", "document_prefix": "[D] "},
        {"query_prefix": "ask: ", "document_prefix": None},
    ],
)
def test_the_settings_of_the_files_are_kept_as_sentence_transformers_keeps_them(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    directory = save_late_interaction(tmp_path, **changes)
    theirs = MultiVectorEncoder(str(directory), device="cpu")
    expected = theirs.similarity(theirs.encode_query([QUERY]), theirs.encode_document(DOCUMENTS))
    scores = load(directory).score(RerankRequest(QUERY, DOCUMENTS))
    assert np.allclose(scores.logits, expected[0].numpy(), atol=1e-4)


def test_a_save_of_sentence_transformers_gives_the_same_scores(
    reranker: LateInteractionReranker, directory: Path, tmp_path: Path
) -> None:
    MultiVectorEncoder(str(directory), device="cpu").save_pretrained(str(tmp_path))
    again = load_reranker(str(tmp_path), "cpu")
    assert isinstance(again, LateInteractionReranker)
    expected = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    scores = load(tmp_path).score(RerankRequest(QUERY, DOCUMENTS)).logits
    assert np.allclose(scores, expected, atol=1e-5)


def test_stanfords_layout_gives_the_same_scores(
    reranker: LateInteractionReranker, directory: Path, tmp_path: Path
) -> None:
    save_late_interaction(tmp_path)
    weights = {f"bert.{k}": v for k, v in load_file(tmp_path / "model.safetensors").items()}
    weights |= load_file(tmp_path / "1_Dense" / "model.safetensors")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for path in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (tmp_path / path).unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    (tmp_path / "artifact.metadata").write_text(
        json.dumps(
            {
                "query_token_id": "[unused0]",
                "doc_token_id": "[unused1]",
                "query_maxlen": 16,
                "doc_maxlen": 40,
                "attend_to_mask_tokens": False,
                "mask_punctuation": True,
            }
        )
    )
    expected = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    scores = load(tmp_path).score(RerankRequest(QUERY, DOCUMENTS)).logits
    assert np.allclose(scores, expected, atol=1e-5)


def test_batched_equals_one_by_one_and_requests_share_batches(
    reranker: LateInteractionReranker,
) -> None:
    together = reranker.score(RerankRequest(QUERY, DOCUMENTS)).logits
    alone = [reranker.score(RerankRequest(QUERY, [each])).logits[0] for each in DOCUMENTS]
    assert np.allclose(together, alone, atol=1e-4)
    one = reranker.prepare(RerankRequest(QUERY, DOCUMENTS))
    two = reranker.prepare(RerankRequest("cats", DOCUMENTS[::-1]))
    rows = [row for place in range(6) for row in ((one, place), (two, place))]
    raw = reranker.run(rows)
    assert np.allclose(raw[::2], together, atol=1e-4)
    other = reranker.score(RerankRequest("cats", DOCUMENTS[::-1])).logits
    assert np.allclose(raw[1::2], other, atol=1e-4)


def test_the_query_is_read_once_per_request(
    reranker: LateInteractionReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    inner = reranker._vectors

    def counted(side: str, features: object) -> object:
        read.append(side)
        return inner(side, features)  # type: ignore[arg-type]

    monkeypatch.setattr(reranker, "_vectors", counted)
    prepared = reranker.prepare(RerankRequest(QUERY, DOCUMENTS))
    for place in range(len(DOCUMENTS)):
        reranker.run([(prepared, place)])
    assert read.count("query") == 1
    reranker.finish(prepared, np.zeros(len(DOCUMENTS), dtype=np.float32))
    assert prepared.shared.vectors is None


def test_a_query_longer_than_usual_is_read_whole(
    reranker: LateInteractionReranker, directory: Path
) -> None:
    query = "apples and pears and plums and cherries and quinces and grapes and figs and dates"
    scores = reranker.score(RerankRequest(query, DOCUMENTS)).logits
    assert np.allclose(scores, by_hand(directory, query, DOCUMENTS), atol=1e-4)
    told = reranker.score(RerankRequest(QUERY, DOCUMENTS, "prefer soups")).logits
    written = f"{QUERY}\n\nInstructions:\nprefer soups"
    assert np.allclose(told, by_hand(directory, written, DOCUMENTS), atol=1e-4)
    with pytest.raises(BadInput, match="Shorten the instruction"):
        reranker.score(RerankRequest(QUERY, DOCUMENTS, "apples " * 200))


def test_special_tokens_within_texts_are_text(reranker: LateInteractionReranker) -> None:
    text = "[unused1] [MASK] [SEP] [CLS]"
    prepared = reranker.prepare(RerankRequest(text, [text]))
    for ids in (prepared.shared.ids, prepared.rows[0]):
        assert ids.count(101) == ids.count(102) == 1
        assert 103 not in ids


def test_other_models_are_none_of_this_kind(tmp_path: Path) -> None:
    assert not is_late_interaction(save_cross_encoder(tmp_path))


def test_a_projection_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    directory = save_late_interaction(tmp_path)
    (directory / "1_Dense" / "model.safetensors").unlink()
    with pytest.raises((ModelNotFound, WrongModel), match=r"model\.safetensors"):
        load_reranker(str(directory), "cpu")


def test_a_chain_without_a_projection_is_refused(tmp_path: Path) -> None:
    directory = save_late_interaction(tmp_path)
    modules = json.loads((directory / "modules.json").read_text())
    (directory / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(WrongModel, match="projection"):
        load_reranker(str(directory), "cpu")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    directory = save_late_interaction(tmp_path)
    path = directory / "1_Dense" / "model.safetensors"
    save_file({"linear.weight": torch.full((8, 32), float("nan"))}, path)
    with pytest.raises(WrongModel, match="no numbers"):
        load_reranker(str(directory), "cpu")
