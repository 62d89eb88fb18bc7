"""Tiny random decoder models on disk, for tests: made in a second, never downloaded, identical in every run.

They have two layers, a hidden size of 64 and a byte-level tokenizer of 300 tokens that can encode any text. Their
answers are meaningless, and they have no LiME layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gemma3", "phi3")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # ids 0, 1, 2
VOCABULARY = 300

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,  # wide, so that logits differ clearly
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}

# Settings of each architecture in addition to _SHAPE: tied or untied head, sliding windows, keys of its own.
_OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"head_dim": 16, "tie_word_embeddings": False, "sliding_window": None}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi3": (
        "Phi3",
        {"tie_word_embeddings": False, "original_max_position_embeddings": 256, "sliding_window": None},
    ),
}

_WORDS: tuple[str, ...] = ("Ġthe", "Ġand", "Ġof", "Ġto", "ing", "Ġanswer", "Ġyes", "Ġno")
_WORDS += ("user", "assistant", "ion", "ess", "Ġskill", "Ġlime")


def tiny_model(architecture: str, directory: Path, seed: int = 0) -> Path:
    """Save a random small model with tokenizer and chat template.

    Args:
        architecture: One of `ARCHITECTURES`.
        directory: Where to save it; created if missing.
        seed: Seed of the weights; the same seed gives the same bytes.

    Returns:
        `directory`, which AutoModelForCausalLM and AutoTokenizer load.

    Raises:
        KeyError: The architecture is not one of `ARCHITECTURES`.
    """
    family, own = _OWN[architecture]
    suffix = "TextConfig" if architecture == "gemma3" else "Config"
    config = getattr(transformers, family + suffix)(**_SHAPE | own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family + "ForCausalLM")(config).eval()
        _randomise_biases_and_norms(model)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tiny_tokenizer(directory)
    return directory


def _randomise_biases_and_norms(model: torch.nn.Module) -> None:
    """Left at their initial 0 or 1, biases and norm weights would hide a graph that omits them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))


def tiny_tokenizer(directory: Path) -> Path:
    """Save a byte-level BPE tokenizer of 300 tokens and its ChatML template; returns `directory`."""
    vocabulary = {token: number for number, token in enumerate(SPECIAL)}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        for end in range(1, len(word)):
            pair = (word[:end], word[end])
            if "".join(pair) not in vocabulary and len(vocabulary) < VOCABULARY:
                vocabulary["".join(pair)] = len(vocabulary)
                merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": _SHAPE["max_position_embeddings"],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    return directory
