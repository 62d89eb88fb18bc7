"""The features of an enlarged picture are packed as transformers does; torch defines the scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lime_edge.runtime.vision.llava_onevision import bilinear, prepare_image, prepare_video
from tests.runtime.vision import contracts as c

RNG = np.random.default_rng(0)


def model() -> Any:
    vision = {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7}
    config = transformers.LlavaOnevisionConfig(vision_config=vision, image_grid_pinpoints=[list(one) for one in c.GRID])
    with torch.device("meta"):
        return transformers.LlavaOnevisionModel(config)


def test_packed_as_transformers_does() -> None:
    torch_model, newline = model(), RNG.random(4, np.float32)
    for number in range(60):
        height, width = (1, 200) if number == 0 else RNG.integers(1, 150, 2)
        made = prepare_image(np.zeros((height, width, 3), np.uint8), c.ONEVISION)
        features = RNG.random((len(made.arrays["pixel_values"]), 16, 4), np.float32)
        wanted, _ = torch_model.pack_image_features(
            [torch.from_numpy(features)],
            torch.tensor([[height, width]]),
            torch.from_numpy(newline),
            vision_aspect_ratio="anyres_max_2",
        )
        found = made.pack({"features": features, "newline": newline})
        assert found.shape == (made.count, 4)
        np.testing.assert_allclose(found, wanted[0].numpy(), atol=1e-6)


def test_one_tile_has_one_newline() -> None:
    made = prepare_image(np.zeros((9, 9, 3), np.uint8), c.ONEVISION_ONE)
    features, newline = RNG.random((1, 16, 4), np.float32), RNG.random(4, np.float32)
    found = made.pack({"features": features, "newline": newline})
    np.testing.assert_array_equal(found, np.concatenate([features[0], newline[None]]))


@pytest.mark.parametrize("size", [(4, 4, 2, 2), (5, 7, 3, 4), (3, 3, 3, 3), (9, 5, 4, 2), (2, 2, 5, 3)])
def test_bilinear_as_torch_does(size: tuple[int, int, int, int]) -> None:
    features = RNG.random((*size[:2], 3), np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(features).permute(2, 0, 1)[None], size[2:], mode="bilinear"
    )
    np.testing.assert_allclose(bilinear(features, *size[2:]), wanted[0].permute(1, 2, 0).numpy(), atol=1e-6)


def test_frames_are_halved_and_end_with_one_newline() -> None:
    frames = [np.zeros((9, 20, 3), np.uint8)] * 3
    made = prepare_video(frames, c.ONEVISION)
    assert made.arrays["pixel_values"].shape == (3, 3, 28, 28)
    assert (made.kind, made.pieces) == ("video", (3 * 4 + 1,))
    features, newline = RNG.random((3, 16, 4), np.float32), RNG.random(4, np.float32)
    found = made.pack({"features": features, "newline": newline})
    corner = features[0].reshape(4, 4, 4)[:2, :2].reshape(4, 4).mean(axis=0)
    np.testing.assert_allclose(found[0], corner, atol=1e-6)
    np.testing.assert_array_equal(found[-1], newline)
