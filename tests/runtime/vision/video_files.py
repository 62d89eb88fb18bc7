"""Small videos, written for tests."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import numpy.typing as npt


def brightness(number: int) -> int:
    """The grey of a frame: numbers can be read from decoded pixels."""
    return 8 + 8 * number


def video(
    count: int = 30, rate: int = 10, kind: str = "mp4", codec: str = "mpeg4", size: tuple[int, int] = (48, 32)
) -> bytes:
    """A video of grey frames, each brighter than the one before."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(count):
            pixels = np.full((size[1], size[0], 3), brightness(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def numbers(frames: Any) -> list[int]:
    """Which frames of `video` these are."""
    means = [float(np.mean(frame)) for frame in frames]
    return [round((mean - 8) / 8) for mean in means]


def given(count: int, size: tuple[int, int] = (48, 32)) -> npt.NDArray[np.uint8]:
    """Frames as an array [count, H, W, 3]."""
    return np.stack([np.full((size[1], size[0], 3), brightness(number), np.uint8) for number in range(count)])
