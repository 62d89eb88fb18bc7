"""Tiny random vision-language models on disk, for tests: one of every family, with processors' settings and tokenizer.

Their decoders are those of `tiny`; a tile has 28 pixels a side, or 32 for SmolVLM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer

from tests.support.tiny import _SHAPE, VOCABULARY, _randomise_biases_and_norms, tiny_tokenizer

FAMILIES = ("llava_clip", "llava_siglip", "llava_onevision", "smolvlm", "idefics3", "qwen2_vl", "qwen2_5_vl")

_ROWS = range(1, 4)
_TOKENS: tuple[str, ...] = ("<image>", "<video>", "<fake_token_around_image>", "<global-img>")
_TOKENS += ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_TOKENS += tuple(f"<row_{row}_col_{column}>" for row in _ROWS for column in _ROWS)
IDS = {token: VOCABULARY + number for number, token in enumerate(_TOKENS)}
SIZE = 320  # of the vocabulary, with `_TOKENS` and a few unused ids

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] -%}
{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO{% else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

_TEXT: dict[str, Any] = _SHAPE | {"vocab_size": SIZE, "max_position_embeddings": 512}
_PIXELS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "rescale_factor": 1 / 255}
_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}


def tiny_vision_model(family: str, directory: Path, seed: int = 0) -> Path:
    """Save a random small vision-language model with its tokenizer, chat template and processors' settings.

    Args:
        family: One of `FAMILIES`.
        directory: Where to save it; created if missing.
        seed: Seed of the weights; the same seed gives the same bytes.

    Returns:
        `directory`, which AutoModelForImageTextToText loads.
    """
    model_class, config, image, video = _MADE[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, model_class)(config).eval()
        _randomise_biases_and_norms(model)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(image, indent=2), "utf-8")
    if video:
        (directory / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2), "utf-8")
    _tokenizer(directory, *_written(family))
    return directory


def _written(family: str) -> tuple[str, str]:
    """What a chat template of the family writes for a picture and for a video."""
    if family.startswith("qwen"):
        return "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
    return "<image>", "<video>"


def _tokenizer(directory: Path, image: str, video: str) -> None:
    tiny_tokenizer(directory)
    path = str(directory / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _TOKENS])
    tokenizer.save(path)
    template = TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)
    (directory / "chat_template.jinja").write_text(template, "utf-8")


Made = tuple[str, Any, dict[str, Any], dict[str, Any]]  # model class, config, settings for images and for videos


def _llava(tower: Any, image: dict[str, Any], **own: Any) -> Made:
    text = transformers.LlamaConfig(**_TEXT | {"head_dim": 16})
    config = transformers.LlavaConfig(vision_config=tower, text_config=text, image_token_index=IDS["<image>"], **own)
    return "LlavaForConditionalGeneration", config, image | _PIXELS, {}


def _llava_clip() -> Made:
    image = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 28},
        "size": {"shortest_edge": 28},
        "resample": 3,
    }
    tower = transformers.CLIPVisionConfig(**_ENCODER, image_size=28, patch_size=14)
    return _llava(tower, image, vision_feature_layer=-2, vision_feature_select_strategy="default")


def _llava_siglip() -> Made:
    image = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28}, "resample": 3}
    tower = transformers.SiglipVisionConfig(**_ENCODER, image_size=28, patch_size=7, vision_use_head=False)
    return _llava(tower, image, vision_feature_layer=-1, vision_feature_select_strategy="full")


def _llava_onevision() -> Made:
    grid = [[28 * rows, 28 * columns] for rows in _ROWS for columns in _ROWS]
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**_ENCODER, image_size=28, patch_size=7, vision_use_head=False),
        text_config=transformers.Qwen2Config(**_TEXT | {"tie_word_embeddings": True}),
        image_token_index=IDS["<image>"],
        video_token_index=IDS["<video>"],
        image_grid_pinpoints=grid,
        vision_aspect_ratio="anyres_max_4",
    )
    size = {"size": {"height": 28, "width": 28}, "resample": 3}
    image = {"image_processor_type": "LlavaOnevisionImageProcessor", "image_grid_pinpoints": grid, "do_pad": True}
    video = {"video_processor_type": "LlavaOnevisionVideoProcessor", **size, **_PIXELS}
    return "LlavaOnevisionForConditionalGeneration", config, image | size | _PIXELS, video


def _smolvlm(name: str = "SmolVLM") -> Made:
    config = getattr(transformers, f"{name}Config")(
        vision_config={**_ENCODER, "image_size": 32, "patch_size": 8},
        text_config=transformers.LlamaConfig(**_TEXT | {"head_dim": 16, "tie_word_embeddings": False}),
        image_token_id=IDS["<image>"],
        scale_factor=2,
    )
    image = {
        "image_processor_type": f"{name}ImageProcessor",
        "do_image_splitting": True,
        "do_pad": True,
        "max_image_size": {"longest_edge": 32},
        "size": {"longest_edge": 96},
        "resample": 1,
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}},
    }
    return f"{name}ForConditionalGeneration", config, image | _PIXELS, {}


def _qwen(version: str, vision: dict[str, Any], window: dict[str, Any]) -> Made:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    own = {"rope_parameters": rope, "tie_word_embeddings": version == "Qwen2_5_VL"}
    config = getattr(transformers, f"{version}Config")(
        text_config=_TEXT | own,
        vision_config={**vision, **window, "spatial_merge_size": 2, "temporal_patch_size": 2, "patch_size": 14},
        image_token_id=IDS["<|image_pad|>"],
        video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"],
        vision_end_token_id=IDS["<|vision_end|>"],
        tie_word_embeddings=version == "Qwen2_5_VL",
    )
    image = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 28 * 28,
        "max_pixels": 28 * 28 * 64,
        "resample": 3,
    }
    return f"{version}ForConditionalGeneration", config, image | _PIXELS, {}


def _qwen2_vl() -> Made:
    return _qwen("Qwen2VL", {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}, {})


def _qwen2_5_vl() -> Made:
    vision = {"depth": 3, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48}
    return _qwen("Qwen2_5_VL", vision, {"window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2})


_MADE: dict[str, Callable[[], Made]] = {
    "llava_clip": _llava_clip,
    "llava_siglip": _llava_siglip,
    "llava_onevision": _llava_onevision,
    "smolvlm": _smolvlm,
    "idefics3": lambda: _smolvlm("Idefics3"),
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
}
