"""The families that are exported, and the `VisionContract` of a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lime_edge.backbones.lime_vision import register
from lime_edge.common.strict_json import show
from lime_edge.contract.vision import FRAME_LIMIT, TILE_LIMIT, VisionContract
from lime_edge.errors import ExportError

from . import lime_tower, llava_tower, onevision_tower, qwen_tower, smolvlm_tower
from .kinds import OWN_FAMILY, config_json
from .settings import read_settings
from .tower_family import TowerFamily

#: Families by the model type in config.json. Every one of them is compared with transformers at each export.
FAMILIES: dict[str, TowerFamily] = {
    "llava": llava_tower.FAMILY,
    "llava_onevision": onevision_tower.FAMILY,
    "smolvlm": smolvlm_tower.FAMILY,
    "idefics3": smolvlm_tower.FAMILY,
    "qwen2_vl": qwen_tower.QWEN2,
    "qwen2_5_vl": qwen_tower.QWEN2_5,
    OWN_FAMILY: lime_tower.FAMILY,
}

_DEEPSTACK = "it adds features of pictures to several layers (DeepStack), which the model builder cannot express"
_REASONS = {"qwen3_vl": _DEEPSTACK, "qwen3_vl_moe": _DEEPSTACK}


def vision_contract(directory: Path, tiles: int = 1, frames: int = 8) -> VisionContract:
    """What a checkpoint says of pictures; reads its settings, no weights.

    Args:
        directory: A vision-language checkpoint in the Hugging Face layout.
        tiles: Most tiles of a picture, the whole picture included: more show more detail, and each takes time. For
            Qwen2-VL, a tile is 1280 features.
        frames: Most frames of a video.

    Raises:
        ExportError: The family is not exported, or settings are missing or not supported.
    """
    name = family_name(directory)
    faults = [
        f"{what} is {show(value)}; expected a whole number from 1 to {most}"
        for what, value, most in (("tiles", tiles, TILE_LIMIT), ("frames", frames, FRAME_LIMIT))
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most
    ]
    if faults:
        raise ExportError("pictures cannot be prepared", faults)
    family = FAMILIES[name]
    settings = read_settings(directory, _config(directory), family.processors, tiles, frames)
    contract = family.contract(settings)
    if faults := contract.faults():
        raise ExportError(f"the settings of {directory} cannot be expressed in vision.json", faults)
    return contract


def family_name(directory: Path) -> str:
    """The model type of a checkpoint that is exported with its tower.

    Raises:
        ExportError: Any other; the message says why.
    """
    name = config_json(directory).get("model_type")
    if name not in FAMILIES:
        reason = _REASONS.get(str(name), "only families whose export was compared with transformers are")
        raise ExportError(f"vision-language models of the type {show(name)} are not exported: {reason}", [_known()])
    return str(name)


def _known() -> str:
    return f"exported are {', '.join(FAMILIES)}"


def _config(directory: Path) -> Any:
    register()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # validators of transformers and huggingface_hub raise many classes
        raise ExportError(f"{directory / 'config.json'} cannot be used: {error}") from error
