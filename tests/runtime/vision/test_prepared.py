"""What a picture becomes: how many features, and in which order."""

from __future__ import annotations

import numpy as np

from lime_edge.runtime.vision.prepared import Prepared, joined


def test_features_are_counted_and_joined() -> None:
    assert Prepared({}, ("a", 2, "b", 3)).count == 5
    tiles = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(joined({"features": tiles}), np.arange(12.0).reshape(6, 2))
    flat = np.zeros((5, 2))
    assert joined({"features": flat}).shape == (5, 2)
