"""Whether a model's weights are the ones its files hold, and whether they are numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from rerank.errors import ModelNotFound, WrongModel
from rerank.inference.devices import is_memory_error

# Names of old checkpoints that transformers still understands.
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
# Where fewer of the body's weights bear the names of the file, transformers renames them while it
# loads, and nothing can be told from names.
_SAME_NAMES = 0.5


@contextmanager
def named_load_errors(name: str) -> Iterator[None]:
    """Around the loading by sentence-transformers: what it raises becomes ModelNotFound for files
    that cannot be read and WrongModel for files that do not belong together."""
    try:
        yield
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelNotFound(
            f"The model {name!r} cannot be loaded: {error}. Download the model again, all of it."
        ) from error
    except (RuntimeError, ValueError) as error:
        if is_memory_error(error):
            raise
        raise WrongModel(
            f"The files of the model {name!r} do not belong together: {error}"
        ) from error


def stored_names(name: str, directory: Path) -> set[str]:
    """Names of all weights in the directory's safetensors files. Raises ModelNotFound."""
    stored: set[str] = set()
    for path in directory.rglob("*.safetensors"):
        try:
            with safe_open(str(path), framework="pt") as file:
                stored.update(file.keys())
        except (OSError, SafetensorError) as error:
            raise ModelNotFound(
                f"The weights of the model {name!r} cannot be read: {path.name}: {error}. Download "
                "the model again, all of it."
            ) from error
    if not stored:
        raise ModelNotFound(
            f"No weights in safetensors format lie in {directory}. Download the model again, all "
            "of it."
        )
    return stored


def refuse_random_weights(name: str, model: Any, directory: Path) -> None:
    """transformers fills weights it does not find with random numbers and only logs it; the scores
    would mean nothing.

    Raises WrongModel for a head that is not stored, ModelNotFound for a part of the body.
    """
    stored = stored_names(name, directory)
    stored |= {_modern(each) for each in stored}
    body = f"{model.base_model_prefix}."
    is_bare = model.base_model is model
    wanted = [parameter for parameter, _ in model.named_parameters()]
    inner = [each for each in wanted if is_bare or each.startswith(body)]
    head = sorted(set(wanted) - set(inner) - stored)
    if head:
        raise WrongModel(
            f"The model {name!r} has no trained scoring head: {', '.join(head)} would be random. "
            "Choose a checkpoint that was trained as a reranker."
        )
    if is_bare:
        # What reads token vectors has no use for the pooler, and some files leave it out.
        inner = [each for each in inner if not each.startswith("pooler.")]
    missing = [
        each for each in inner if not {each, each.removeprefix(body), f"{body}{each}"} & stored
    ]
    if inner and 0 < len(missing) < (1 - _SAME_NAMES) * len(inner):
        raise ModelNotFound(
            f"The weights of the model {name!r} are incomplete: {len(missing)} are missing, the "
            f"first is {missing[0]}. Download the model again, all of it."
        )


def refuse_broken_weights(name: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raises WrongModel when one of the named weights holds a value that is no number."""
    for weight, values in weights:
        if not bool(torch.isfinite(values).all()):
            raise WrongModel(
                f"The model {name!r} is broken: {weight} holds values that are no numbers. "
                "Download the model again."
            )


def _modern(weight: str) -> str:
    front, _, last = weight.rpartition(".")
    return f"{front}.{_OLD_NAMES[last]}" if last in _OLD_NAMES else weight
