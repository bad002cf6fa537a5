"""Tiny rerankers of other kinds than zerank, made from configs with random weights of a fixed
seed."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors
from transformers import (
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from .tiny import _save, config
from .tiny_qwen import decoder, save_modules, tokenizer

# As Qwen3-Reranker's: the instruction has a place of its own, with a text that stands there
# otherwise, and the answer follows empty thoughts.
YES_NO = """\
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") \
| first | default("Given a web search query, retrieve relevant passages that answer the query") -%}
{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") \
| first -%}
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ instruction }}
<Query>: {{ query }}
<Document>: {{ document }}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
# As mxbai-rerank-v2's: plain text follows the document, and there is no place for an instruction.
ONE_ZERO = """\
{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") \
| first -%}
<|im_start|>user
query: {{ query }}
document: {{ document }}
You are a search relevance expert who evaluates how well documents match search queries. \
Answer 1 for relevant and 0 for not relevant.
Relevance:<|im_end|>
<|im_start|>assistant
"""
THOUGHTS = ("<think>", "</think>")


def save_yes_no(directory: Path, template: str = YES_NO, **changes: Any) -> Path:
    """Qwen3 with `template`, the modules of sentence-transformers, and its score "yes" - "no"."""
    return _save_answering(decoder(**changes), directory, template, ("Yes", "No"))


def save_one_zero(directory: Path, template: str = ONE_ZERO) -> Path:
    """Qwen2, whose score is "1" - "0"."""
    torch.manual_seed(7)
    made = tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=made.get_vocab_size(with_added_tokens=True) + len(THOUGHTS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=512,
            initializer_range=0.3,
            tie_word_embeddings=True,
            pad_token_id=made.token_to_id("<|endoftext|>"),
        )
    )
    return _save_answering(model.eval(), directory, template, ("1", "0"))


def save_templated_classifier(directory: Path) -> Path:
    """The conversion of a yes/no model to one label, which reads the same template."""
    save_yes_no(directory)
    weights = load_file(directory / "model.safetensors")
    weights.pop("lm_head.weight", None)
    yes, no = (tokenizer().token_to_id(word) for word in ("Yes", "No"))
    words = weights["model.embed_tokens.weight"]
    weights["score.weight"] = (words[yes] - words[no])[None].contiguous()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((directory / "config.json").read_text())
    settings |= {"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}
    (directory / "config.json").write_text(json.dumps(settings))
    modules = json.loads((directory / "modules.json").read_text())
    (directory / "modules.json").write_text(json.dumps(modules[:1]))
    reads = {"method": "forward", "method_output_name": "logits"}
    (directory / "sentence_bert_config.json").write_text(
        json.dumps(
            {
                "transformer_task": "sequence-classification",
                "modality_config": {"text": reads, "message": {**reads, "format": "flat"}},
                "module_output_name": "scores",
            }
        )
    )
    return directory


def save_roberta(directory: Path) -> Path:
    torch.manual_seed(7)
    made = _byte_level()
    model = RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=made.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=130,
            initializer_range=0.3,
            num_labels=1,
            pad_token_id=1,
        )
    )
    return _save_classifier(model, made, directory, {"model_max_length": 128})


def save_deberta(directory: Path) -> Path:
    torch.manual_seed(7)
    made = _byte_level()
    model = DebertaV2ForSequenceClassification(
        DebertaV2Config(
            vocab_size=made.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.3,
            num_labels=1,
            pad_token_id=1,
            relative_attention=True,
            position_buckets=16,
            pos_att_type=["p2c", "c2p"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            type_vocab_size=0,
        )
    )
    return _save_classifier(model, made, directory, {"model_max_length": 128})


def save_modern_bert(directory: Path) -> Path:
    torch.manual_seed(7)
    made = _byte_level()
    model = ModernBertForSequenceClassification(
        ModernBertConfig(
            vocab_size=made.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=256,
            initializer_range=0.3,
            initializer_cutoff_factor=3.0,
            num_labels=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            cls_token_id=0,
            sep_token_id=2,
            global_attn_every_n_layers=2,
            local_attention=8,
        )
    )
    return _save_classifier(
        model, made, directory, {"model_input_names": ["input_ids", "attention_mask"]}
    )


def _byte_level() -> Tokenizer:
    """<s> query </s></s> document </s>, as RoBERTa reads it."""
    state = json.loads(tokenizer(control=False).to_str())
    vocabulary = state["model"]["vocab"]
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    moved = {word: number + len(specials) for word, number in vocabulary.items()}
    state["model"]["vocab"] = {**{s: i for i, s in enumerate(specials)}, **moved}
    made = Tokenizer.from_str(json.dumps(state))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in specials])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return made


def _save_classifier(
    model: PreTrainedModel, made: Tokenizer, directory: Path, settings: dict[str, Any]
) -> Path:
    model.save_pretrained(directory)
    made.save(str(directory / "tokenizer.json"))
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": "<pad>",
                "unk_token": "<unk>",
                "mask_token": "<mask>",
                **names,
                **settings,
            }
        )
    )
    return directory


def _save_answering(model: Any, directory: Path, template: str, words: tuple[str, str]) -> Path:
    made = tokenizer()
    if model.config.vocab_size < made.get_vocab_size(with_added_tokens=True) + len(THOUGHTS):
        model.resize_token_embeddings(
            made.get_vocab_size(with_added_tokens=True) + len(THOUGHTS), mean_resizing=False
        )
    made.add_tokens([AddedToken(each, special=False, normalized=False) for each in THOUGHTS])
    save_modules(model, directory)
    made.save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(template)
    true, false = (made.token_to_id(word) for word in words)
    (directory / "1_LogitScore" / "config.json").write_text(
        json.dumps({"true_token_id": true, "false_token_id": false})
    )
    return directory


def save_late_interaction(directory: Path, added: tuple[str, ...] = (), **changes: Any) -> Path:
    """BERT and a projection as PyLate saves them. `added`: prefixes it gave tokens of their own;
    `changes` to its settings."""
    torch.manual_seed(7)
    body = BertModel(config(vocab_size=30522 + len(added)), add_pooling_layer=False)
    _save(body, directory)
    made = Tokenizer.from_file(str(directory / "tokenizer.json"))
    made.add_tokens([AddedToken(each, special=False, normalized=True) for each in added])
    made.save(str(directory / "tokenizer.json"))
    settings = {
        "model_type": "ColBERT",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[unused0] ",
        "document_prefix": "[unused1] ",
        "query_length": 16,
        "document_length": 40,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        "do_query_expansion": True,
        **changes,
    }
    (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 127, "do_lower_case": False})
    )
    dense = directory / "1_Dense"
    dense.mkdir()
    (dense / "config.json").write_text(
        json.dumps(
            {
                "in_features": 32,
                "out_features": 8,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            }
        )
    )
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(7))
    save_file({"linear.weight": weight}, dense / "model.safetensors")
    return directory
