"""SmolVLM, SmolVLM2 and Idefics3: tiles of an enlarged picture, then the whole picture, with marks between them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from lime_edge.contract.names import PIXEL_VALUES
from lime_edge.contract.vision import Marks, Tiles, VisionContract

from .image_file import Pixels
from .llava import one_tile
from .number_words import number_words
from .pixels import even, normalised, resized, up_to
from .prepared import Prepared

_LONGEST = 4096  # pixels of a side of an enlarged picture, whatever the settings say


def prepare_image(pixels: Pixels, contract: VisionContract) -> Prepared:
    """A picture [H, W, 3]; equal to `SmolVLMImageProcessorPil` and `Idefics3ImageProcessorPil`."""
    tiles, marks, settings = contract.tiles, contract.marks, contract.pixels
    assert tiles is not None  # checked by the contract
    assert marks is not None
    if not tiles.longest_edge:
        whole = one_tile(pixels, tiles, settings)
        return Prepared({PIXEL_VALUES: normalised(whole, settings)[None]}, _whole_pieces(tiles, marks))
    pixels = resized(pixels, *_enlarged_size(pixels, tiles.longest_edge), settings)
    pixels = resized(pixels, *_whole_tiles(pixels, tiles.height), settings)
    rows, columns = pixels.shape[0] // tiles.height, pixels.shape[1] // tiles.width
    if rows == columns == 1:
        return Prepared({PIXEL_VALUES: normalised(pixels, settings)[None]}, _whole_pieces(tiles, marks))
    parts = pixels.reshape(rows, tiles.height, columns, tiles.width, 3).swapaxes(1, 2)
    parts = parts.reshape(rows * columns, tiles.height, tiles.width, 3)
    every = np.concatenate([parts, resized(pixels, tiles.height, tiles.width, settings)[None]])
    pieces: list[str | int] = []
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            pieces += [f"{marks.around}{marks.tile.format(row=row, column=column)}", tiles.tokens]
        pieces.append("\n")
    pieces += ["\n", *_whole_pieces(tiles, marks)]
    return Prepared({PIXEL_VALUES: normalised(every, settings)}, _merged(pieces))


def frame_pixels(frame: Pixels, contract: VisionContract) -> Pixels:
    """A frame of a video as the picture [H, W, 3] that is resized to a tile."""
    edge = contract.video.longest_edge if contract.video is not None else 0
    return resized(frame, *_enlarged_size(frame, edge), contract.pixels) if edge else frame


def frame_texts(seconds: Sequence[float], duration: float) -> tuple[str, list[str], str]:
    """The texts before a video, before each frame, and after the video.

    Args:
        seconds: When each frame is shown.
        duration: Of the video, in seconds.
    """
    count, length = number_words(len(seconds)), timedelta(seconds=int(duration))
    before = f"You are provided the following series of {count} frames from a {length} [H:MM:SS] video.\n"
    stamps = [f"\nFrame from {int(second // 60):02d}:{int(second % 60):02d}:" for second in seconds]
    return before, stamps, "\n\n"


def _enlarged_size(pixels: Pixels, edge: int) -> tuple[int, int]:
    """Height and width when the longer side is scaled to `edge`; the other side becomes even."""
    height, width = pixels.shape[:2]
    ratio = width / height
    if width >= height:
        height, width = even(int(edge / ratio)), edge
    else:
        height, width = edge, even(int(edge * ratio))
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > _LONGEST:
        height, width = int(_LONGEST / ratio), _LONGEST
    elif height > width and height > _LONGEST:
        height, width = _LONGEST, int(_LONGEST * ratio)
    return max(height, 1), max(width, 1)


def _whole_tiles(pixels: Pixels, side: int) -> tuple[int, int]:
    """Height and width when both are enlarged to multiples of a tile's side."""
    height, width = pixels.shape[:2]
    ratio = width / height
    if width >= height:
        width = up_to(width, side)
        height = up_to(int(width / ratio), side)
    else:
        height = up_to(height, side)
        width = up_to(int(height * ratio), side)
    return max(height, side), max(width, side)


def _whole_pieces(tiles: Tiles, marks: Marks) -> tuple[str | int, ...]:
    return (f"{marks.around}{marks.whole}", tiles.tokens, marks.around)


def _merged(pieces: list[str | int]) -> tuple[str | int, ...]:
    """Neighbouring texts as one: a tokenizer sees them together."""
    merged: list[str | int] = []
    for piece in pieces:
        last = merged[-1] if merged else 0
        if isinstance(piece, str) and isinstance(last, str):
            merged[-1] = last + piece
        else:
            merged.append(piece)
    return tuple(merged)
