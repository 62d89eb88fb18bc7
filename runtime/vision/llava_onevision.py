"""LLaVA-OneVision: the whole picture as one tile, then the tiles of an enlarged one ("anyres"); videos are pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lime_edge.contract.names import PIXEL_VALUES, VISION_FEATURES, VISION_NEWLINE
from lime_edge.contract.vision import Tiles, VisionContract

from .image_file import Pixels
from .llava import one_tile
from .pixels import check_area, normalised, resized
from .prepared import Array, Outputs, Prepared

_SCALED = 1.1  # enlarged pictures with more features than allowed by this factor (of a side) are scaled down


def prepare_image(pixels: Pixels, contract: VisionContract) -> Prepared:
    """A picture [H, W, 3]; equal to `LlavaOnevisionImageProcessorPil` with one picture.

    Without a grid it is one tile and a newline, as each of several pictures is in transformers.
    """
    tiles, settings = contract.tiles, contract.pixels
    assert tiles is not None  # checked by the contract
    if not tiles.grid:
        tile = normalised(one_tile(pixels, tiles, settings), settings)
        return Prepared({PIXEL_VALUES: tile[None]}, (tiles.tokens + 1,), pack=_with_newline)
    size = pixels.shape[:2]
    large = _best_size(size, tiles)
    parts = [resized(pixels, tiles.height, tiles.width, settings), *_cut(_enlarged(pixels, large, contract), tiles)]
    parts = [resized(part, tiles.height, tiles.width, settings) for part in parts]  # changes nothing, as there
    shape = (large[0] // tiles.height, large[1] // tiles.width)
    rows, columns = _packed_size(size, shape, tiles)

    def pack(outputs: Outputs) -> Array:
        return _packed(outputs, size, shape, tiles)

    count = tiles.tokens + rows * (columns + 1)
    return Prepared({PIXEL_VALUES: normalised(np.stack(parts), settings)}, (count,), pack=pack)


def prepare_video(frames: Sequence[Pixels], contract: VisionContract) -> Prepared:
    """Frames [H, W, 3], each resized to a tile; their features are halved in both directions, with one newline."""
    tiles, settings = contract.tiles, contract.pixels
    assert tiles is not None  # checked by the contract
    check_area(tiles.height, tiles.width, count=len(frames))
    pictures = np.stack([resized(frame, tiles.height, tiles.width, settings) for frame in frames])
    side, half = tiles.grid_side, math.ceil(tiles.grid_side / 2)

    def pack(outputs: Outputs) -> Array:
        features = outputs[VISION_FEATURES].reshape(len(frames), side, side, -1)
        pooled = [bilinear(frame, half, half).reshape(half * half, -1) for frame in features]
        return np.concatenate([*pooled, outputs[VISION_NEWLINE][None]])

    count = len(frames) * half * half + 1
    return Prepared({PIXEL_VALUES: normalised(pictures, settings)}, (count,), "video", pack)


def bilinear(features: Array, rows: int, columns: int) -> Array:
    """[h, w, H] -> [rows, columns, H]: torch's interpolate(mode="bilinear", align_corners=False)."""
    for axis, count in ((0, rows), (1, columns)):
        size = features.shape[axis]
        at = ((np.arange(count) + 0.5) * np.float32(size / count) - 0.5).clip(0)  # centres of the new positions
        low = at.astype(np.int64).clip(0, size - 1)
        high = (low + 1).clip(0, size - 1)
        share = (at - low).astype(np.float32).reshape([-1 if axis == side else 1 for side in range(3)])
        features = features.take(low, axis) * (1 - share) + features.take(high, axis) * share
    return features


def _best_size(size: tuple[int, int], tiles: Tiles) -> tuple[int, int]:
    """The enlarged size (height, width) that keeps most of a picture's pixels and, of such, wastes least."""
    height, width = size
    best, kept, wasted = tiles.grid[0], 0, math.inf
    for high, wide in tiles.grid:
        scale = min(wide / width, high / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        waste = wide * high - effective
        if effective > kept or (effective == kept and waste < wasted):
            best, kept, wasted = (high, wide), effective, waste
    return best


def _enlarged(pixels: Pixels, large: tuple[int, int], contract: VisionContract) -> Pixels:
    """The picture scaled into the enlarged size, in the middle of black."""
    (height, width), (high, wide) = pixels.shape[:2], large
    if wide / width < high / height:
        new = (min(math.ceil(height * (wide / width)), high), wide)
    else:
        new = (high, min(math.ceil(width * (high / height)), wide))
    out = np.zeros((high, wide, 3), np.uint8)
    top, left = (high - new[0]) // 2, (wide - new[1]) // 2
    out[top : top + new[0], left : left + new[1]] = resized(pixels, *new, contract.pixels)
    return out


def _cut(pixels: Pixels, tiles: Tiles) -> list[Pixels]:
    """A picture of whole tiles, cut row by row."""
    rows, columns = pixels.shape[0] // tiles.height, pixels.shape[1] // tiles.width
    cut = pixels.reshape(rows, tiles.height, columns, tiles.width, 3).swapaxes(1, 2)
    return list(cut.reshape(rows * columns, tiles.height, tiles.width, 3))


def _unpadded(size: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """Rows above (and below), and columns left (and right), that only show padding."""
    height, width = size
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


def _packed_size(size: tuple[int, int], shape: tuple[int, int], tiles: Tiles) -> tuple[int, int]:
    """Rows and columns of the features of an enlarged picture, without newlines."""
    rows, columns = (count * tiles.grid_side for count in shape)
    above, left = _unpadded(size, rows, columns)
    rows, columns = rows - 2 * above, columns - 2 * left
    ratio = math.sqrt(rows * columns / (tiles.grid_tiles * tiles.grid_side**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > _SCALED else (rows, columns)


def _packed(outputs: Outputs, size: tuple[int, int], shape: tuple[int, int], tiles: Tiles) -> Array:
    """Features [F, H]: those of the whole picture, then the rows of the enlarged one, each with a newline."""
    features, newline = outputs[VISION_FEATURES], outputs[VISION_NEWLINE]
    side, width = tiles.grid_side, features.shape[-1]
    large = features[1:].reshape(*shape, side, side, width).swapaxes(1, 2)
    large = large.reshape(shape[0] * side, shape[1] * side, width)  # [rows, columns, H]
    above, left = _unpadded(size, *large.shape[:2])
    large = large[above : large.shape[0] - above, left : large.shape[1] - left]
    rows, columns = _packed_size(size, shape, tiles)
    if (rows, columns) != large.shape[:2]:
        large = bilinear(large, rows, columns)
    ends = np.broadcast_to(newline, (rows, 1, width))
    return np.concatenate([features[0], np.concatenate([large, ends], axis=1).reshape(-1, width)])


def _with_newline(outputs: Outputs) -> Array:
    return np.concatenate([outputs[VISION_FEATURES][0], outputs[VISION_NEWLINE][None]])
