"""Which frames of a video a model sees, as the video processors of transformers choose them."""

from __future__ import annotations

import math

import numpy as np

from lime_edge.contract.vision import VisionContract

_SKIPPED = 1.0  # seconds at both ends of a long video that SmolVLM leaves out


def chosen_frames(count: int, rate: float, contract: VisionContract) -> list[int]:
    """Numbers of the frames of a video, ascending, at least one.

    Args:
        count: Frames of the video, at least 1.
        rate: Frames a second.
        contract: The model's; it takes videos.
    """
    video = contract.video
    assert video is not None  # checked by the caller
    if contract.family == "smolvlm":
        return _of_smolvlm(count, rate, video.frames, video.fps or 1.0)
    if contract.patches is not None:
        return _of_qwen(count, rate, contract)
    most = min(video.frames, count)
    if video.fps:
        most = min(most, max(1, int(count / rate * video.fps)))
    return [number * count // most for number in range(most)]


def _of_smolvlm(count: int, rate: float, most: int, fps: float) -> list[int]:
    duration = count / rate
    wanted = max(1, min(round(fps * duration), most))
    first, last = 0, count - 1
    if duration - 2 * _SKIPPED > most * fps:
        first, last = max(0, int(_SKIPPED * rate)), min(int(count - _SKIPPED * rate), count - 1)
        if first >= last:
            first, last = 0, count - 1
    return [int(number) for number in np.unique(np.linspace(first, last, wanted, dtype=int))]


def _of_qwen(count: int, rate: float, contract: VisionContract) -> list[int]:
    video, patches = contract.video, contract.patches
    assert video is not None
    assert patches is not None
    deep = patches.temporal
    if video.fps:
        most = math.floor(min(video.frames, count) / deep) * deep
        wanted = min(max(count / rate * video.fps, video.least_frames), most, count)
        number = math.floor(wanted / deep) * deep
    else:
        number = min(round(video.frames / deep) * deep, count)
    number = max(number, 1)
    return [int(at) for at in np.arange(0, count, count / number)[:number].astype(int)]
