"""What a directory says of a zerank model, in any of its published layouts. No torch.

- `remote code` (2025): a causal language model whose scoring lay in `modeling_zeranker.py`; that
  file is never run.
- `modules` (2026): sentence-transformers modules, the last one `LogitScore`.
- `classifier`: conversions to sequence classification with one label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rerank.errors import ModelNotFound, WrongModel
from rerank.inference.models import max_tokens, read_json

Layout = Literal["remote code", "modules", "classifier"]

# What the model cards advertise; the backbone's own limit is higher.
MOST_TOKENS = 32_768
# The word whose logit is the score, where the files name no token.
TRUE_WORD = "Yes"
_REMOTE_CODE = "modeling_zeranker"


@dataclass(frozen=True)
class ZerankFiles:
    """`directory`: of config and weights. `true_token`, `false_token`: vocabulary ids of the head,
    None for what the files leave open. `max_tokens`: of one prompt, frame included."""

    name: str
    directory: Path
    layout: Layout
    config: dict[str, Any]
    true_token: int | None
    false_token: int | None
    max_tokens: int

    @property
    def tokenizer_file(self) -> Path:
        return self.directory / "tokenizer.json"


def zerank_files(name: str, directory: Path) -> ZerankFiles | None:
    """None when the model is of another kind.

    Raises ModelNotFound when a file is missing or broken, WrongModel for a bare language model and
    for a classifier of several labels.
    """
    head = _logit_score(directory)
    body = _body(directory) if head is not None else directory
    if not (body / "config.json").is_file():
        return None
    config = read_json(body / "config.json")
    if not isinstance(config, dict):
        raise ModelNotFound(f"The file {body / 'config.json'} holds no settings of a model.")
    layout = _layout(name, body, config, head)
    if layout is None:
        return None
    return ZerankFiles(
        name=name,
        directory=body,
        layout=layout,
        config=config,
        true_token=head.get("true_token_id") if head else None,
        false_token=head.get("false_token_id") if head else None,
        max_tokens=min(max_tokens(body, config), MOST_TOKENS),
    )


def _layout(
    name: str, body: Path, config: dict[str, Any], head: dict[str, Any] | None
) -> Layout | None:
    architecture = str((config.get("architectures") or [""])[0])
    is_qwen = config.get("model_type") == "qwen3" or architecture.startswith("Qwen3For")
    if head is not None:
        return "modules" if is_qwen and _renders_the_frame(body) else None
    if _has_remote_code(body, config):
        return "remote code"
    if not is_qwen:
        return None
    if architecture == "Qwen3ForSequenceClassification" and _is_called_zerank(name, body, config):
        labels = len(config.get("id2label") or {}) or int(config.get("num_labels", 2))
        if labels != 1:
            raise WrongModel(
                f"The model {name!r} gives {labels} numbers for a pair; a reranker gives one. "
                "Choose a checkpoint with one label."
            )
        return "classifier"
    if architecture == "Qwen3ForCausalLM":
        if _is_called_zerank(name, body, config):
            return "remote code"
        raise WrongModel(
            f"The model {name!r} is a language model that was not trained to score; its numbers "
            "would mean nothing. Choose a reranker, for example zeroentropy/zerank-2-reranker."
        )
    return None


def _logit_score(directory: Path) -> dict[str, Any] | None:
    """The settings of the module that turns logits into the score, if there is one."""
    for module in _modules(directory):
        if str(module.get("type", "")).endswith(".LogitScore"):
            settings = read_json(directory / module["path"] / "config.json")
            if not isinstance(settings.get("true_token_id"), int):
                raise ModelNotFound(
                    f"The file {directory / module['path'] / 'config.json'} names no true token. "
                    "Download the model again."
                )
            return dict(settings)
    return None


def _body(directory: Path) -> Path:
    for module in _modules(directory):
        if str(module.get("type", "")).endswith(".Transformer"):
            return directory / str(module.get("path", ""))
    return directory


def _modules(directory: Path) -> Iterator[dict[str, Any]]:
    path = directory / "modules.json"
    if path.is_file():
        yield from read_json(path)


def _has_remote_code(body: Path, config: dict[str, Any]) -> bool:
    classes = (config.get("auto_map") or {}).values()
    named = any(_REMOTE_CODE in str(each) for each in classes)
    return named or (body / f"{_REMOTE_CODE}.py").is_file()


def _is_called_zerank(name: str, body: Path, config: dict[str, Any]) -> bool:
    """Other rerankers share the classifier's architecture but read another prompt, so only the
    name tells them apart: the model's, its directory's, or the one in its config."""
    called = name if not Path(name).is_dir() else body.name
    return "zerank" in f"{called} {config.get('_name_or_path', '')}".lower()


def _renders_the_frame(body: Path) -> bool:
    """Whether the chat template makes of (query, document) what zerank reads; other rerankers in
    the same layout read another prompt."""
    template = _chat_template(body)
    if template is None:
        return False
    from transformers.utils import chat_template_utils as _untyped

    chat_templates: Any = _untyped
    pair = [{"role": "query", "content": "Q"}, {"role": "document", "content": "D"}]
    try:
        rendered, _ = chat_templates.render_jinja_template(
            [pair], chat_template=template, add_generation_prompt=True
        )
    except Exception:  # a template may raise anything on roles it does not know
        return False
    frame = (
        "<|im_start|>system\nQ<|im_end|>\n<|im_start|>user\nD<|im_end|>\n<|im_start|>assistant\n"
    )
    return bool(rendered[0] == frame)


def _chat_template(body: Path) -> str | None:
    file = body / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    settings = body / "tokenizer_config.json"
    template = read_json(settings).get("chat_template") if settings.is_file() else None
    return template if isinstance(template, str) else None
