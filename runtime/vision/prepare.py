"""Prepares pictures and videos for the model of any family, from its vision contract alone."""

from __future__ import annotations

from lime_edge.contract.vision import VisionContract

from . import llava, llava_onevision, qwen2_vl, smolvlm
from .image_file import Pixels
from .prepared import Prepared

_FAMILIES = {
    "llava": llava.prepare_image,
    "lime_vision": llava.prepare_image,
    "llava_onevision": llava_onevision.prepare_image,
    "smolvlm": smolvlm.prepare_image,
    "qwen2_vl": qwen2_vl.prepare_image,
    "qwen2_5_vl": qwen2_vl.prepare_image,
}


def prepare_image(pixels: Pixels, contract: VisionContract) -> Prepared:
    """The inputs and the place in a prompt of one picture [H, W, 3].

    Raises:
        ConfigError: The picture is too long and narrow for the model.
    """
    return _FAMILIES[contract.family](pixels, contract)
