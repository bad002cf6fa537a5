"""A tiny Qwen3 decoder of a fixed seed in each published zerank layout, with a byte-level BPE
tokenizer that divides texts and marks control tokens as Qwen's does."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import Qwen3Config, Qwen3ForCausalLM

from rerank.inference.qwen_frame import QWEN_SPLIT

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + ('system' if message['role'] in ['query', 'system'] else 'user') + '\\n'"
    " + (message['content'] | trim) + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_TEXTS = [
    "system user assistant Yes No Yes Instructions: what is the first step in making apple jam",
    "boil apples, then stir; the answer is 42 and it's fine. Cats and dogs don't care.",
    "Schöne Grüße aus Köln. Привет, как дела? こんにちは世界。 مرحبا بالعالم 你好，世界",
]


def without_control(text: str) -> bool:
    """For generated texts: other implementations would read control tokens in them."""
    return not any(token in text for token in CONTROL)


def tokenizer(control: bool = True) -> Tokenizer:
    """Without `control`: the same ids for texts, and no control tokens at all."""
    made = Tokenizer.from_str(_trained())
    if control:
        made.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in CONTROL]
        )
    return made


@functools.cache
def _trained() -> str:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        _TEXTS * 3,
        BpeTrainer(
            vocab_size=500,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return str(made.to_str())


def decoder(seed: int = 7, **changes: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    made = tokenizer()
    fields = {
        "vocab_size": made.get_vocab_size(with_added_tokens=True),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "pad_token_id": made.token_to_id("<|endoftext|>"),
        **changes,
    }
    return Qwen3ForCausalLM(Qwen3Config(**fields)).eval()


def save_modules(model: Qwen3ForCausalLM, directory: Path, false_token: int | None = None) -> Path:
    """As published in May 2026: sentence-transformers modules ending in LogitScore."""
    _save(model, directory)
    _write(
        directory / "modules.json",
        [
            {
                "idx": 0,
                "name": "0",
                "path": "",
                "type": "sentence_transformers.base.modules.transformer.Transformer",
            },
            {
                "idx": 1,
                "name": "1",
                "path": "1_LogitScore",
                "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
            },
        ],
    )
    _write(
        directory / "1_LogitScore" / "config.json",
        {"true_token_id": tokenizer().token_to_id("Yes"), "false_token_id": false_token},
    )
    reads = {"method": "forward", "method_output_name": "logits"}
    _write(
        directory / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": reads, "message": {**reads, "format": "flat"}},
            "module_output_name": "causal_logits",
            "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
        },
    )
    _write(
        directory / "config_sentence_transformers.json",
        {"activation_fn": "torch.nn.modules.linear.Identity", "model_type": "CrossEncoder"},
    )
    return directory


def save_remote_code(model: Qwen3ForCausalLM, directory: Path) -> Path:
    """As published in 2025: the scoring lay in a Python file, here one that must never run."""
    _save(model, directory)
    config = json.loads((directory / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    changes = {
        "auto_map": {"AutoConfig": "modeling_zeranker.ZEConfig"},
        "rope_theta": theta,
        "rope_scaling": None,
        "torch_dtype": "float32",
    }
    _write(directory / "config.json", {**config, **changes})
    (directory / "modeling_zeranker.py").write_text("raise SystemExit('this file was run')\n")
    return directory


def save_classifier(model: Qwen3ForCausalLM, directory: Path, labels: int = 1) -> Path:
    """A conversion to sequence classification: the head is the vocabulary row of "Yes"."""
    _save(model, directory)
    weights = load_file(directory / "model.safetensors")
    weights.pop("lm_head.weight", None)
    row = model.lm_head.weight[tokenizer().token_to_id("Yes")].detach()
    weights["score.weight"] = row[None].repeat(labels, 1).contiguous()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    changes = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "id2label": {str(label): f"LABEL_{label}" for label in range(labels)},
        "_name_or_path": "zeroentropy/zerank-1-small",
    }
    _write(directory / "config.json", {**config, **changes})
    return directory


def change_weights(directory: Path, changes: Mapping[str, torch.Tensor | None]) -> None:
    """Replaces weights by name; None removes one."""
    weights = {**load_file(directory / "model.safetensors"), **changes}
    kept = {name: values for name, values in weights.items() if values is not None}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})


def _save(model: Qwen3ForCausalLM, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer().save(str(directory / "tokenizer.json"))
    _write(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": model.config.max_position_embeddings,
        },
    )
    (directory / "chat_template.jinja").write_text(TEMPLATE)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
