"""One tile: what is cut off and what is added."""

from __future__ import annotations

import numpy as np

from lime_edge.runtime.vision.llava import one_tile
from tests.runtime.vision import contracts as c


def test_the_centre_of_a_wide_picture() -> None:
    pixels = np.zeros((28, 84, 3), np.uint8)
    pixels[:, 28:56] = 255
    assert c.LLAVA.tiles is not None
    assert (one_tile(pixels, c.LLAVA.tiles, c.LLAVA.pixels) == 255).all()


def test_the_whole_of_a_wide_picture_in_a_square() -> None:
    pixels = np.full((14, 28, 3), 255, np.uint8)
    assert c.LLAVA_SQUARE.tiles is not None
    tile = one_tile(pixels, c.LLAVA_SQUARE.tiles, c.LLAVA_SQUARE.pixels)
    assert (tile[7:21] == 255).all()
    assert tile[0, 0].tolist() == [int(mean * 255) for mean in c.LLAVA_SQUARE.pixels.mean]
