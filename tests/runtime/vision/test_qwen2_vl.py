"""Order of patches, windows and positions; test_prepare.py compares pixels with transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from lime_edge.errors import ConfigError
from lime_edge.runtime.vision.qwen2_vl import patch_size, prepare_image, prepare_video, window_order
from tests.runtime.vision import contracts as c


def test_patches_by_hand() -> None:
    """28 x 28 pixels are 4 x 4 patches; the four patches of a feature stand together."""
    pixels = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4), 7, 0), 7, 1)
    made = prepare_image(np.repeat(pixels[..., None], 3, -1), c.QWEN2)
    red = made.arrays["pixel_values"].reshape(16, 3, 2, 7, 7)[:, 0]
    assert np.argsort(red[:, 0, 0, 0]).argsort().tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert (red[:, 0] == red[:, 1]).all()  # a picture stands for both frames of a patch
    assert made.arrays["positions"][:5].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]]
    assert made.arrays["segment_ids"].tolist() == [0] * 16
    assert (made.pieces, made.grid) == ((4,), (1, 2, 2))


def test_windows_by_hand() -> None:
    order, window = window_order(2, 3, 2)
    assert order.tolist() == [0, 1, 3, 4, 2, 5]
    assert window.tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_videos_as_transformers_orders_them(frames: int) -> None:
    pictures = [np.full((40, 60, 3), 10 * number, np.uint8) for number in range(frames)]
    made = prepare_video(pictures, 0.5, c.QWEN2_5)
    assert made.grid is not None
    grid = torch.tensor([[made.grid[0], made.grid[1] * 2, made.grid[2] * 2]])
    order, bounds = get_vision_window_index(grid, 2, 28, 7)
    wanted = get_vision_position_ids(grid, 2).reshape(-1, 4, 2)[order].reshape(-1, 2)
    np.testing.assert_array_equal(made.arrays["positions"], wanted.numpy())
    windows = made.arrays["window_ids"]
    changes = [0, *(np.flatnonzero(np.diff(windows)) + 1), len(windows)]
    assert changes == bounds.tolist()
    assert (made.grid[0], made.interval) == (-(-frames // 2), 4.0)  # 4 positions a second, a step of 2 frames
    segments = made.arrays["segment_ids"]
    assert np.unique(segments).tolist() == list(range(made.grid[0]))
    features = np.arange(made.count)[order.numpy()]
    np.testing.assert_array_equal(made.pack({"features": features}), np.arange(made.count))
    assert made.kind == "video"


def test_sizes_within_limits() -> None:
    assert c.QWEN2.patches is not None
    for height, width in ((1, 1), (14, 14), (1000, 1000), (10, 1000), (333, 77)):
        high, wide = patch_size(height, width, c.QWEN2.patches, 14 * 14 * 4, 14 * 14 * 40)
        assert high % 14 == wide % 14 == 0
        assert high * wide >= 14 * 14 * 4
    with pytest.raises(ConfigError, match="sides that differ"):
        patch_size(1, 201, c.QWEN2.patches, 1, 1000)
