"""Qwen2-VL and Qwen2.5-VL: vision.onnx against transformers, with several pictures, videos and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from tests.exporters.towers.tower_case import (
    TOLERANCE,
    Array,
    contract_of,
    error,
    family_of,
    features,
    run,
    torch_model,
    tower,
)

NAMES = ["qwen2_vl", "qwen2_5_vl"]
GRIDS = [(1, 6, 10), (2, 4, 4), (1, 2, 2)]  # frames, rows and columns of patches; windows are cut off


def inputs(name: str, grids: list[tuple[int, int, int]]) -> tuple[dict[str, Array], Array]:
    """Inputs of vision.onnx for noise, and the order of its features."""
    grid = torch.tensor(grids)
    count = sum(t * h * w for t, h, w in grids)
    pixels = np.random.default_rng(0).standard_normal((count, 1176), np.float32)
    segments = np.repeat(np.arange(sum(t for t, _, _ in grids)), [h * w for t, h, w in grids for _ in range(t)])
    arrays: dict[str, Any] = {
        "pixel_values": pixels,
        "positions": get_vision_position_ids(grid, 2).numpy(),
        "segment_ids": segments,
    }
    order = np.arange(count // 4)
    if name == "qwen2_5_vl":
        index, bounds = get_vision_window_index(grid, spatial_merge_size=2, window_size=56, patch_size=14)
        order, ends = index.numpy(), torch.unique_consecutive(bounds).numpy()
        arrays = {key: value.reshape(count // 4, 4, -1)[order].reshape(value.shape) for key, value in arrays.items()}
        arrays["window_ids"] = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    return {"raw": pixels, **arrays}, order


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_transformers(name: str) -> None:
    for grids in (GRIDS, GRIDS[:1]):
        arrays, order = inputs(name, grids)
        raw = torch.from_numpy(arrays.pop("raw"))
        found = run(tower(name), arrays)["features"][np.argsort(order)]
        assert error(found, features(name, pixel_values=raw, image_grid_thw=torch.tensor(grids))) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_pictures_do_not_see_each_other(name: str) -> None:
    probe = family_of(name).probe(torch_model(name), contract_of(name))
    first = probe.arrays["segment_ids"] == 0
    count = int(first.sum()) // 4
    other = probe.arrays["pixel_values"].copy()
    other[~first] = 1
    found = [
        run(tower(name), probe.arrays | {"pixel_values": p})["features"] for p in (probe.arrays["pixel_values"], other)
    ]
    assert np.array_equal(found[0][:count], found[1][:count])
    assert not np.allclose(found[0][count:], found[1][count:], atol=1e-3)


def test_pixels_of_pictures_and_frames() -> None:
    contract = contract_of("qwen2_5_vl")
    assert contract.patches is not None
    assert contract.video is not None
    assert (contract.patches.least_pixels, contract.patches.most_pixels, contract.patches.window) == (784, 50176, 56)
    assert (contract.video.frames, contract.video.fps, contract.video.tokens_per_second) == (8, 2.0, 2.0)
    assert contract_of("qwen2_vl").video is not None
