"""Steps that families share, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lime_edge.contract.vision import Pixels
from lime_edge.errors import ConfigError
from lime_edge.runtime.vision.pixels import (
    centre,
    check_area,
    even,
    normalised,
    padded_square,
    resized,
    shortest_edge,
    up_to,
)

HALF = Pixels("nearest", 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.25, 1.0))
RAMP = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def test_normalised_by_hand() -> None:
    pixels = np.array([[[0, 255, 51]]], np.uint8)  # 0, 1, 0.2
    np.testing.assert_allclose(normalised(pixels, HALF)[:, 0, 0], [-1, 2, -0.3], atol=1e-7)
    assert normalised(np.stack([RAMP, RAMP]), HALF).shape == (2, 3, 2, 4)
    raw = Pixels("nearest", 1.0, (127.0,) * 3, (128.0,) * 3)
    assert normalised(RAMP, raw)[1, 0, 3] == (10 - 127) / 128


def test_resized_by_hand() -> None:
    np.testing.assert_array_equal(resized(RAMP, 2, 2, HALF), RAMP[:, [1, 3]])  # of two, nearest takes the second
    assert resized(RAMP, 5, 6, HALF).shape == (5, 6, 3)


def test_square_and_centre_by_hand() -> None:
    square = padded_square(RAMP, HALF)
    assert square.shape == (4, 4, 3)
    np.testing.assert_array_equal(square[1:3], RAMP)
    assert (square[[0, 3]] == 127).all()
    np.testing.assert_array_equal(centre(RAMP, 2, 2), RAMP[:, 1:3])
    assert shortest_edge(RAMP, 3) == (3, 6)
    assert shortest_edge(RAMP.swapaxes(0, 1), 3) == (6, 3)


def test_a_picture_is_not_enlarged_without_bounds() -> None:
    thin = np.zeros((1, 200, 3), np.uint8)
    with pytest.raises(ConfigError, match="819,200 x 4,096 pixels would be made"):
        resized(thin, *shortest_edge(thin, 4096), HALF)
    with pytest.raises(ConfigError, match="too long and narrow"):
        padded_square(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (100, 9000, 3)), HALF)
    check_area(8192, 8192)
    with pytest.raises(ConfigError, match="2 times 8,192 x 8,192 pixels would be made"):
        check_area(8192, 8192, 2)


def test_rounding() -> None:
    assert [even(3), even(4)] == [4, 4]
    assert [up_to(1, 32), up_to(32, 32), up_to(33, 32)] == [32, 32, 64]
