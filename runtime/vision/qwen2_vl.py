"""Qwen2-VL and Qwen2.5-VL: pictures of any size in patches, with positions in time, rows and columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import PATCH_POSITIONS, PIXEL_VALUES, SEGMENT_IDS, VISION_FEATURES, WINDOW_IDS
from lime_edge.contract.vision import Patches, VisionContract
from lime_edge.errors import ConfigError

from .image_file import SIDES_LIMIT, Pixels
from .pixels import check_area, normalised, resized
from .prepared import Array, Outputs, Prepared

Ints = npt.NDArray[np.int64]


def prepare_image(pixels: Pixels, contract: VisionContract) -> Prepared:
    """A picture [H, W, 3]; its patches are those of `Qwen2VLImageProcessorPil`.

    Raises:
        ConfigError: It is too long and narrow.
    """
    patches = contract.patches
    assert patches is not None  # checked by the contract
    size = patch_size(pixels.shape[0], pixels.shape[1], patches, patches.least_pixels, patches.most_pixels)
    frame = normalised(resized(pixels, *size, contract.pixels), contract.pixels)
    return _prepared(np.broadcast_to(frame, (patches.temporal, *frame.shape)), contract, "image", 1.0)


def prepare_video(frames: Sequence[Pixels], seconds: float, contract: VisionContract) -> Prepared:
    """Frames [H, W, 3] of one size; the last is repeated until they fill whole patches in time.

    Args:
        seconds: Time from one frame to the next.

    Raises:
        ConfigError: They are too long and narrow.
    """
    patches, video = contract.patches, contract.video
    assert patches is not None  # checked by the contract
    assert video is not None
    size = patch_size(frames[0].shape[0], frames[0].shape[1], patches, video.least_pixels, video.most_pixels)
    check_area(size[0], size[1], count=len(frames) + patches.temporal)
    pixels = [resized(frame, *size, contract.pixels) for frame in frames]
    pixels += [pixels[-1]] * (-len(pixels) % patches.temporal)
    step = video.tokens_per_second * seconds * patches.temporal if video.tokens_per_second else 1.0
    return _prepared(normalised(np.stack(pixels), contract.pixels), contract, "video", step)


def patch_size(height: int, width: int, patches: Patches, least: int, most: int) -> tuple[int, int]:
    """Height and width as multiples of patch * merge, within limits of pixels, with nearly the same ratio of sides."""
    if max(height, width) > SIDES_LIMIT * min(height, width):
        raise ConfigError(f"the picture has {width} x {height} pixels; expected sides that differ {SIDES_LIMIT} times")
    unit = patches.patch * patches.merge
    high, wide = round(height / unit) * unit, round(width / unit) * unit
    if high * wide > most:
        scale = math.sqrt((height * width) / most)
        high, wide = (max(unit, math.floor(side / scale / unit) * unit) for side in (height, width))
    elif high * wide < least:
        scale = math.sqrt(least / (height * width))
        high, wide = (math.ceil(side * scale / unit) * unit for side in (height, width))
    check_area(high, wide, patches.temporal)
    return high, wide


def window_order(rows: int, columns: int, side: int) -> tuple[Ints, Ints]:
    """Attention windows of the features of one frame.

    Args:
        rows, columns: Of features.
        side: Features along the side of a window.

    Returns:
        The number of each feature [n] in the order of windows, and the window of each, in that order.
    """
    row, column = np.divmod(np.arange(rows * columns), columns)
    window = row // side * -(-columns // side) + column // side
    order = np.argsort(window, kind="stable")
    return order, window[order]


def _prepared(frames: npt.NDArray[np.float32], contract: VisionContract, kind: Any, step: float) -> Prepared:
    """Frames [t, 3, h, w] as patches; t is a multiple of the frames of a patch."""
    patches = contract.patches
    assert patches is not None  # checked by the contract
    size, merge, deep = patches.patch, patches.merge, patches.temporal
    times, rows, columns = len(frames) // deep, frames.shape[2] // size, frames.shape[3] // size
    cut = frames.reshape(times, deep, 3, rows // merge, merge, size, columns // merge, merge, size)
    # time, row and column of the feature, row and column in it | channel, frame, row and column in the patch
    values = cut.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(times * rows * columns, -1)
    arrays: dict[str, Array] = {PIXEL_VALUES: values, PATCH_POSITIONS: _positions(times, rows, columns, merge)}
    arrays[SEGMENT_IDS] = np.repeat(np.arange(times), rows * columns)
    grid = (times, rows // merge, columns // merge)
    pack = None
    if patches.window:
        order, windows = _windows(grid, patches.window // merge // size)
        arrays = {name: _regrouped(array, order, merge**2) for name, array in arrays.items()}
        arrays[WINDOW_IDS] = np.repeat(windows, merge**2)
        back = np.argsort(order)

        def pack(outputs: Outputs) -> Array:
            return outputs[VISION_FEATURES][back]

    count = grid[0] * grid[1] * grid[2]
    made = Prepared(arrays, (count,), kind, grid=grid, interval=step)
    return made if pack is None else Prepared(arrays, (count,), kind, pack, grid, step)


def _positions(times: int, rows: int, columns: int, merge: int) -> Ints:
    """Row and column of every patch [n, 2], the patches of a feature one after the other."""
    shape = (rows // merge, merge, columns // merge, merge)
    axes = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    one = np.stack([axis.reshape(shape).swapaxes(1, 2).reshape(-1) for axis in axes], axis=-1)
    return np.tile(one, (times, 1))


def _windows(grid: tuple[int, int, int], side: int) -> tuple[Ints, Ints]:
    """As `window_order`, over all frames."""
    order, window = window_order(grid[1], grid[2], side)
    step, count = len(order), int(window.max()) + 1
    times = np.arange(grid[0])[:, None]
    return (order + times * step).reshape(-1), (window + times * count).reshape(-1)


def _regrouped(array: Array, order: Ints, group: int) -> Array:
    """The rows of an array, in groups that are put into another order."""
    return array.reshape(-1, group, *array.shape[1:])[order].reshape(array.shape)
