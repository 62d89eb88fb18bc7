"""Resizing, cropping, padding and normalising: steps that families share, equal to transformers' Pillow classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.common.extras import require_extra
from lime_edge.contract.vision import Pixels as Settings
from lime_edge.errors import ConfigError

from .image_file import PIXEL_LIMIT, Pixels

Floats = npt.NDArray[np.float32]


def resized(pixels: Pixels, height: int, width: int, settings: Settings) -> Pixels:
    """[H, W, 3] -> [height, width, 3], with Pillow's filter.

    Raises:
        ConfigError: The result has too many pixels.
    """
    with require_extra("vision"):
        from PIL import Image
    check_area(height, width)
    resample = Image.Resampling[settings.resample.upper()]
    return np.array(Image.fromarray(pixels).resize((width, height), resample=resample))


def check_area(height: int, width: int, count: int = 1) -> None:
    """Refuse pictures of too many pixels before they are made.

    Raises:
        ConfigError: `count` of them together have more than a file may have.
    """
    if height * width * count > PIXEL_LIMIT:
        several = f"{count} times " if count > 1 else ""
        raise ConfigError(
            f"{several}{width:,} x {height:,} pixels would be made of the picture; expected at most {PIXEL_LIMIT:,} in "
            "all: it is too long and narrow, or has too many frames"
        )


def shortest_edge(pixels: Pixels, edge: int) -> tuple[int, int]:
    """Height and width of a picture whose shorter side is scaled to `edge` pixels."""
    height, width = pixels.shape[:2]
    long = int(edge * max(height, width) / min(height, width))
    return (edge, long) if height <= width else (long, edge)


def centre(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle [height, width, 3] of a picture that is at least as large."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def padded_square(pixels: Pixels, settings: Settings) -> Pixels:
    """The picture in the middle of a square in the mean colour."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    check_area(side, side)
    colour = [min(max(int(mean * 255), 0), 255) for mean in settings.mean]
    square = np.empty((side, side, 3), np.uint8)
    square[...] = colour
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def normalised(pixels: npt.NDArray[Any], settings: Settings) -> Floats:
    """[..., H, W, 3] bytes -> [..., 3, H, W] float32.

    The result of each of the 256 values is computed once, as transformers does: rescaled in float64, then float32.
    """
    scaled = (np.arange(256, dtype=np.float64) * settings.rescale).astype(np.float32)
    out = np.empty((*pixels.shape[:-3], 3, *pixels.shape[-3:-1]), np.float32)
    for channel, (mean, std) in enumerate(zip(settings.mean, settings.std, strict=True)):
        table = (scaled - np.float32(mean)) / np.float32(std)
        np.take(table, pixels[..., channel], out=out[..., channel, :, :])
    return out


def even(value: int) -> int:
    """The next even number."""
    return value + value % 2


def up_to(value: float, unit: int) -> int:
    """The next multiple of a unit."""
    return math.ceil(value / unit) * unit
