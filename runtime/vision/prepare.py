"""Prepares pictures and videos for the model of any family, from its vision contract alone."""

from __future__ import annotations

from typing import Any

from lime_edge.contract.vision import VisionContract

from . import llava, llava_onevision, qwen2_vl, smolvlm
from .image_file import Pixels
from .prepared import Prepared
from .video_file import Clip

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


def prepare_video(clip: Clip, contract: VisionContract) -> Prepared:
    """The inputs and the place in a prompt of a video, for families with a token of their own for it.

    Raises:
        ConfigError: The frames are too long and narrow for the model.
    """
    if contract.patches is not None:
        return qwen2_vl.prepare_video(clip.frames, clip.step, contract)
    return llava_onevision.prepare_video(clip.frames, contract)


def video_as_parts(clip: Clip, contract: VisionContract) -> list[dict[str, Any]]:
    """A video as parts of a message, for families whose frames stand in a prompt like pictures.

    SmolVLM reads when each frame is shown; for others frames are pictures alone.
    """
    if contract.family != "smolvlm":
        return [{"type": "image", "image": frame} for frame in clip.frames]
    before, stamps, after = smolvlm.frame_texts(clip.seconds, clip.duration)
    parts: list[dict[str, Any]] = [{"type": "text", "text": before}]
    for stamp, frame in zip(stamps, clip.frames, strict=True):
        parts += [{"type": "text", "text": stamp}, {"type": "image", "image": smolvlm.frame_pixels(frame, contract)}]
    return [*parts, {"type": "text", "text": after}]
