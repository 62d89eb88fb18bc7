"""LLaVA: vision.onnx against transformers, with CLIP and SigLIP, and the settings that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lime_edge.contract.vision import Tiles
from lime_edge.errors import ExportError
from lime_edge.exporters.towers.contracts import vision_contract
from tests.exporters.towers.tower_case import TOLERANCE, checkpoint, contract_of, error, features, run, tower


@pytest.mark.parametrize("name", ["llava_clip", "llava_siglip"])
def test_features_are_those_of_transformers(name: str) -> None:
    tiles = contract_of(name).tiles
    assert tiles is not None
    for count in (1, 3):
        pixels = np.random.default_rng(count).standard_normal((count, 3, 28, 28), np.float32)
        found = run(tower(name), {"pixel_values": pixels})["features"]
        assert found.shape == (count, tiles.tokens, 64)
        expected = features(name, pixel_values=torch.from_numpy(pixels))
        assert error(found.reshape(expected.shape), expected) < TOLERANCE


def test_what_the_processors_do() -> None:
    assert contract_of("llava_clip").tiles == Tiles(28, 28, 14, 4, shortest_edge=28)  # resized, then cropped
    assert contract_of("llava_siglip").tiles == Tiles(28, 28, 7, 16)  # resized to the tile


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"crop_size": {"height": 14, "width": 14}}, "expected the tower's 28 pixels a side"),
        ({"do_center_crop": False}, "no crop; expected the tower's 28 pixels"),
        ({"do_normalize": False}, "the image processor has do_normalize turned off"),
        ({"image_processor_type": "ViTImageProcessor"}, "the image processor is 'ViTImageProcessor'; expected one of"),
        ({"crop_size": []}, "the settings of CLIPImageProcessor in"),
    ],
)
def test_settings_that_are_not_supported(change: dict[str, object], fault: str, tmp_path: Path) -> None:
    shutil.copytree(checkpoint("llava_clip"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ExportError, match=fault):
        vision_contract(tmp_path)


def test_a_tower_that_was_not_tried_is_refused(tmp_path: Path) -> None:
    shutil.copytree(checkpoint("llava_clip"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    config["vision_config"] = {"model_type": "pixtral"}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ExportError, match="the tower is a pixtral; expected one of clip_vision_model"):
        vision_contract(tmp_path)
