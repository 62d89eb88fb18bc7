"""SmolVLM and Idefics3: vision.onnx against transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lime_edge.contract.vision import Video
from tests.exporters.towers.tower_case import TOLERANCE, contract_of, error, features, run, tower


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
def test_features_are_those_of_transformers(name: str) -> None:
    for count in (1, 5):
        pixels = np.random.default_rng(count).standard_normal((count, 3, 32, 32), np.float32)
        found = run(tower(name), {"pixel_values": pixels})["features"]
        assert found.shape == (count, 4, 64)
        expected = features(name, pixel_values=torch.from_numpy(pixels)[None])
        assert error(found.reshape(expected.shape), expected) < TOLERANCE


def test_an_enlarged_picture_takes_no_more_tiles_than_wanted() -> None:
    for wanted, limit, edge in ((1, 1, 0), (4, 1, 0), (5, 5, 64), (9, 5, 64), (10, 10, 96), (64, 10, 96)):
        tiles = contract_of("smolvlm", wanted).tiles
        assert tiles is not None
        assert (tiles.limit, tiles.longest_edge) == (limit, edge)


def test_only_smolvlm_takes_videos() -> None:
    assert contract_of("smolvlm").video == Video(8, 1.0, longest_edge=32)
    assert contract_of("idefics3").video is None
