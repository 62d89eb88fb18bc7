"""LLaVA-OneVision: vision.onnx against transformers, for pictures and for the frames of a video."""

from __future__ import annotations

import numpy as np
import torch

from lime_edge.contract.vision import Video
from tests.exporters.towers.tower_case import (
    TOLERANCE,
    contract_of,
    error,
    family_of,
    features,
    run,
    torch_model,
    tower,
)

NAME = "llava_onevision"


def test_features_of_several_pictures_are_those_of_transformers() -> None:
    probe = family_of(NAME).probe(torch_model(NAME), contract_of(NAME))
    found = family_of(NAME).packed(run(tower(NAME), probe.arrays))
    assert error(found, features(NAME, **probe.given)) < TOLERANCE


def test_features_of_an_enlarged_picture_hold_those_of_its_tiles() -> None:
    """A square of three by three tiles needs no padding; a row of its features ends with the newline."""
    tiles = np.random.default_rng(1).standard_normal((10, 3, 28, 28), np.float32)
    out = run(tower(NAME), {"pixel_values": tiles})
    rows = out["features"][1:].reshape(3, 3, 4, 4, 64).transpose(0, 2, 1, 3, 4).reshape(12, 12, 64)
    newline = np.broadcast_to(out["newline"], (12, 1, 64))
    packed = np.concatenate([out["features"][0], np.concatenate([rows, newline], 1).reshape(-1, 64)])
    given = {"pixel_values": torch.from_numpy(tiles)[None], "image_sizes": torch.tensor([[84, 84]])}
    assert error(packed, features(NAME, **given, vision_aspect_ratio="anyres_max_9")) < TOLERANCE


def test_frames_are_tiles() -> None:
    frames = np.random.default_rng(2).standard_normal((3, 3, 28, 28), np.float32)
    found = run(tower(NAME), {"pixel_values": frames})["features"].reshape(3, 4, 4, 64)
    pooled = found.reshape(3, 2, 2, 2, 2, 64).mean((2, 4))  # what bilinear scaling by one half is
    with torch.no_grad():
        expected = torch_model(NAME).get_video_features(torch.from_numpy(frames)[None]).pooler_output
    assert error(pooled.reshape(-1, 64), torch.cat(list(expected)).flatten(0, -2).numpy()[: 3 * 4]) < TOLERANCE


def test_only_enlarged_pictures_of_the_wanted_number_of_tiles() -> None:
    for wanted, sizes in ((1, []), (2, [(28, 28)]), (3, [(28, 28), (28, 56), (56, 28)])):
        tiles = contract_of(NAME, wanted).tiles
        assert tiles is not None
        assert (sorted(tiles.grid), tiles.limit, tiles.grid_tiles, tiles.square) == (sizes, wanted, 4, True)
    assert contract_of(NAME).video == Video(8)
