"""What families share: features in the order of tokens, and tiles of noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lime_edge.contract.vision import Pixels, Tiles, VisionContract
from lime_edge.exporters.towers.tower_family import every_feature, random_tiles

CONTRACT = VisionContract("llava", 8, "<image>", 1, Pixels("bicubic", 1.0, (0.0,) * 3, (1.0,) * 3), Tiles(6, 4, 2, 6))


def test_features_of_all_tiles_in_a_row() -> None:
    features = np.arange(48).reshape(2, 3, 8)
    assert np.array_equal(every_feature({"features": features}), features.reshape(6, 8))
    assert np.array_equal(every_feature({"features": features[0]}), features[0])


def test_tiles_of_noise_are_the_same_every_time() -> None:
    tiles = random_tiles(CONTRACT, 3)
    assert tiles.shape == (3, 3, 6, 4)
    assert tiles.dtype == np.float32
    assert np.array_equal(tiles[:2], random_tiles(CONTRACT, 2))
    square = replace(CONTRACT, tiles=Tiles(4, 4, 2, 4))
    assert random_tiles(square, 1).shape == (1, 3, 4, 4)
