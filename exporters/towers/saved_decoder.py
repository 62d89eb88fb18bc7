"""The decoder of a vision-language model, saved as a language model that the model builder knows."""

from __future__ import annotations

import contextlib
import io
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

_COPIED: tuple[str, ...] = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
_COPIED += ("chat_template.jinja", "generation_config.json")
_NO_TOWER = {"depth": 1, "hidden_size": 16, "num_heads": 1, "intermediate_size": 16, "fullatt_block_indexes": [0]}


def save_decoder(model: Any, backbone: Path, output: Path, rotary_3d: bool) -> None:
    """Save decoder, head and tokenizer.

    Args:
        model: The transformers model; it is not changed, and its weights are not copied.
        backbone: The directory it was loaded from, for the tokenizer's files.
        output: Directory to create.
        rotary_3d: Whether the decoder takes positions [3, B, S]. Then it is saved as a Qwen2.5-VL model with a tower of
            one tiny layer, the only such model that the builder knows; Qwen2-VL has the same decoder.
    """
    output.mkdir()
    with quiet():
        causal = _with_rotary_3d(model) if rotary_3d else _causal(model)
        causal.save_pretrained(output)
    for pattern in _COPIED:
        for path in sorted(backbone.glob(pattern)):
            if not (output / path.name).exists() or path.name == "generation_config.json":
                shutil.copyfile(path, output / path.name)


def _causal(model: Any) -> Any:
    decoder = model.get_decoder()
    config = type(decoder.config).from_dict(decoder.config.to_dict())
    config.tie_word_embeddings = _tied(model)
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    _fill(causal, model)
    return causal


def _with_rotary_3d(model: Any) -> Any:
    text = model.get_decoder().config.to_dict() | {"tie_word_embeddings": _tied(model)}
    text.pop("model_type", None)
    tower = _NO_TOWER | {"out_hidden_size": text["hidden_size"]}
    ids = {name: getattr(model.config, name) for name in ("image_token_id", "video_token_id")}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=tower, tie_word_embeddings=_tied(model), **ids)
    with torch.device("meta"):
        whole = Qwen2_5_VLForConditionalGeneration(config)
    _fill(whole, model)
    whole.model.visual = type(whole.model.visual)(config.vision_config)
    return whole


def _fill(empty: Any, model: Any) -> None:
    """Give a model without weights the decoder and the head of another."""
    empty.get_decoder().load_state_dict(model.get_decoder().state_dict(), assign=True)
    empty.lm_head.weight = empty.get_input_embeddings().weight if _tied(model) else model.lm_head.weight


def _tied(model: Any) -> bool:
    """Whether embedding and head share a table."""
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
